"""A sidecar that tests take in turns; those that run experiments ask for a `name` of their own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.programs import Nginx, Sidecar, until

HELLO = 'location / { return 200 "hello"; }'


@contextmanager
def shared_sidecar(directory: Path, **settings: Any) -> Iterator[Sidecar]:
    """Started, before an nginx that says hello."""
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", HELLO)
        stack.callback(nginx.stop)
        sidecar = Sidecar(directory / "sidecar", nginx.url, settings)
        stack.callback(sidecar.stop)
        yield sidecar.start()


@contextmanager
def exclusive_use(sidecar: Sidecar) -> Iterator[Sidecar]:
    """Afterwards it has the listeners that it had before, and no experiment."""
    settings = {**sidecar.settings, "listeners": dict(sidecar.settings["listeners"])}
    yield sidecar
    if sidecar.settings != settings:
        sidecar.settings = settings
        sidecar.write_settings()
    for file in (sidecar.directory / "experiments").iterdir():
        if not file.is_dir():
            file.unlink()
    until(lambda: not sidecar.get("/api/experiments")["experiments"])
    until(lambda: sidecar.metric("counterfault_config_last_reload_successful") == 1)
    until(sidecar.acts)
