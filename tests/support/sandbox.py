"""Run a script as root of a machine of its own: its files and processes are gone afterwards."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.programs import program

# Its root is an overlay over this machine's; without a network it has a loopback of its own, so
# that fixed ports are free.
_ENTER = """
set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t proc none "$1/root/proc"
[ "$3" = network ] || ip link set lo up
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


def run(script: str, directory: Path, timeout: float, *, network: bool = False) -> str:
    """The script's output; the test fails if it does, and is skipped without the privilege."""
    if why := _refused():
        pytest.skip(f"needs root and mount namespaces: {why}")
    directory.mkdir()
    # Without the project's own environment: what is built must not find it.
    path = f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *["--net"][network:]]
    told = subprocess.run(
        [*unshare, "sh", "-c", _ENTER, "sh", str(directory), script, "network" * network],
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
