"""Notice that the configuration directory has changed."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from watchfiles import Change, awatch

from counterfault.proxy.config.loader import EXPERIMENTS, SIDECAR

log = logging.getLogger("counterfault")

# Changes that come together are one reload; a new experiment must act within a second.
_SETTLE_MS = 100
_STEP_MS = 50


async def changes(directory: Path) -> AsyncIterator[None]:
    """Yield whenever something in the directory changed; Kubernetes' `..data` swaps too.

    The directory is watched, never a file: a mounted ConfigMap replaces its files by renaming
    a symlink beside them.
    """
    while True:
        try:
            async for _ in awatch(
                directory,
                watch_filter=partial(_matters, directory),
                debounce=_SETTLE_MS,
                step=_STEP_MS,
                ignore_permission_denied=True,
            ):
                yield
        except (OSError, RuntimeError) as e:
            log.warning("cannot watch %s: %s; SIGHUP and the API still reload", directory, e)
            await asyncio.sleep(5)


def _matters(directory: Path, _: Change, path: str) -> bool:
    """Whether a path is configuration: a log or a state directory beside it is not."""
    try:
        first = Path(path).relative_to(directory.absolute()).parts[:1]
    except ValueError:
        first = Path(path).relative_to(directory.resolve()).parts[:1]
    names = (SIDECAR, EXPERIMENTS, _linked(directory))
    return not first or first[0] in names or first[0].startswith("..")


def _linked(directory: Path) -> str:
    """The folder here that sidecar.yaml is a link into: a mounted ConfigMap of its own."""
    try:
        folder, *more = (directory / SIDECAR).readlink().parts
    except OSError:
        return SIDECAR
    return folder if more else SIDECAR
