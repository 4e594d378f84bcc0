"""What a measurement ran on: programs, versions, cores."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light"}
_SBIN = "/usr/sbin:/sbin"
_TICKS = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """Something that the benchmark needs is not here; says what to do."""


def needed() -> dict[str, str]:
    """The paths of the programs from Debian. Raises Missing."""
    found = {name: shutil.which(name) or shutil.which(name, path=_SBIN) for name in PACKAGES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        raise Missing(f"{', '.join(missing)}: not installed. On Debian: apt-get install {packages}")
    return {name: path for name, path in found.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Cores:
    """Where things run: the load, nginx and supervisors on one core, workers on the others."""

    load: int
    workers: tuple[int, ...]

    def of_worker(self, index: int) -> int:
        """One worker has a core to itself; only the last of many shares the load's."""
        order = (*self.workers, self.load)
        return order[index % len(order)]


def cores() -> Cores:
    """The cores that this process may use. Raises Missing."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise Missing("two cores are needed: one for the proxy, one for nginx and the load")
    return Cores(first, tuple(others))


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@contextmanager
def awake(which: Cores) -> Iterator[None]:
    """Keep cores from halting, as a kernel's `idle=poll` does; whoever has work comes first.

    A virtual machine's core takes as long to wake as Envoy takes to serve.
    """
    busy = [_keep_awake(core) for core in (which.load, *which.workers)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _keep_awake(core: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-ISc", "while True: pass"])
    os.sched_setaffinity(process.pid, {core})
    os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
    return process


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, in the kernel and outside of it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def described() -> dict[str, str | int]:
    """The machine, without its name."""
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "cpu": found[1] if found else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def versions(programs: dict[str, str]) -> dict[str, str]:
    """Of everything that a figure may depend on."""
    packages = ("counterfault", "mitmproxy", "uvloop")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        **{name: _version(path) for name, path in programs.items()},
    }


def commit(against: Path | None) -> dict[str, str]:
    """The commit of another checkout that is compared with; empty if there is none."""
    if against is None:
        return {}
    asked = ["git", "-C", str(against), "rev-parse", "--short", "HEAD"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False)
    return {"before": said.stdout.strip() or "unknown"}


def _version(path: str) -> str:
    flag = "--version" if path.endswith("h2load") else "-v"
    said = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+[^\s]*", said.stdout + said.stderr)
    return found[0] if found else "unknown"
