"""Run a script as root of a machine whose disk is a copy: nothing it writes is there afterwards."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from programs import program

# The root is an overlay over this machine's, in a mount namespace; it is gone with the script.
_ENTER = """
set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount --rbind /proc "$1/root/proc"
exec chroot "$1/root" sh -c "$2"
"""


@cache
def _refused() -> str:
    """Why there is no such machine here; or nothing."""
    told = subprocess.run(
        [program("unshare"), "-m", "-n", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stderr.strip()


def run(script: str, directory: Path, timeout: float) -> str:
    """The script's output; the test fails if it does, and is skipped without the privilege."""
    if why := _refused():
        pytest.skip(f"needs root and mount namespaces: {why}")
    directory.mkdir()
    # Without the project's own environment: what is built must not find it.
    path = f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    told = subprocess.run(
        ["unshare", "-m", "sh", "-c", _ENTER, "sh", str(directory), script],
        env={"PATH": path, "HOME": str(Path.home()), **_registry()},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-4000:]
    return told.stdout


def _registry() -> dict[str, str]:
    """How pip finds its registry here."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
