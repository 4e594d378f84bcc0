"""Envoy's process: started, watched, replaced without a gap, adopted from who was before us."""

import asyncio
import logging
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy import __version__
from proxy.engines.envoy.directory import LOG, PID, Directory, version_of
from proxy.engines.envoy.names import BOOTSTRAP, Json

log = logging.getLogger("counterfault")

_BASE = "base-id"
_POLL = 0.05
# How often Envoy hands over its lines.
_FLUSH_MS = 50


@dataclass(frozen=True, slots=True)
class Command:
    """How Envoy is started. `drain` in seconds."""

    binary: str
    concurrency: int
    drain: float

    def line(self, epoch: int, base: str | None) -> list[str]:
        """`epoch`: how many came before without a gap; `base`: what they have in common."""
        shared = ["--base-id", base] if base else ["--use-dynamic-base-id"]
        drain = max(1, round(self.drain))
        return [
            *(self.binary, "--config-path", BOOTSTRAP, "--concurrency", str(self.concurrency)),
            *(*shared, "--base-id-path", _BASE, "--restart-epoch", str(epoch)),
            *("--drain-time-s", str(drain), "--parent-shutdown-time-s", str(drain + 1)),
            *("--drain-strategy", "immediate", "--file-flush-interval-msec", str(_FLUSH_MS)),
            *("--log-level", "warning", "--component-log-level", "misc:critical"),
            *("--log-format", "%l %v", "--reject-unknown-dynamic-fields"),
        ]


class Process:
    """At most one Envoy that counts; one that it has replaced finishes what it has."""

    def __init__(self, directory: Directory, command: Command) -> None:
        self._directory, self._command = directory, command
        self._child: subprocess.Popen[bytes] | None = None
        self._before: list[subprocess.Popen[bytes]] = []
        self.pid = 0
        self._epoch = 0

    @property
    def incarnation(self) -> str:
        return f"envoy-{self.pid}"

    def adopt(self, bootstrap: Json) -> bool:
        """Take over the Envoy of a supervisor before us; False if there is none.

        One that was started otherwise than we would is replaced.
        """
        about = self._directory.get(PID)
        pid = about.get("pid", 0)
        if not isinstance(pid, int) or not _runs_in(pid, self._directory.path):
            return False
        self.pid, self._epoch = pid, int(about["epoch"])
        if about.get("made") != self._made(bootstrap):
            self.start(bootstrap, replace=True)
        return True

    def start(self, bootstrap: Json, *, replace: bool = False) -> None:
        """Start an Envoy; it takes the sockets of the one that it is to replace."""
        self._directory.put(BOOTSTRAP, bootstrap)
        self._epoch = self._epoch + 1 if replace else 0
        base = self._base()
        # Not blocking: Envoy must not wait for us when it has much to say.
        said = os.open(self._directory.path / LOG, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if self._child is not None:
            self._before.append(self._child)
        try:
            self._child = subprocess.Popen(
                self._command.line(self._epoch, base),
                cwd=self._directory.path,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        finally:
            os.close(said)
        self.pid = self._child.pid
        made = {"pid": self.pid, "epoch": self._epoch, "made": self._made(bootstrap)}
        self._directory.put(PID, made)

    async def ended(self) -> None:
        """Wait until the present one is gone."""
        while self.alive():
            await _gone(self.pid)

    def alive(self) -> bool:
        self._before = [child for child in self._before if child.poll() is None]
        if self._child is not None and self._child.pid == self.pid:
            return self._child.poll() is None
        return _runs_in(self.pid, self._directory.path)

    def signal(self, number: int) -> None:
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def stop(self, grace: float) -> None:
        """Make it leave; after `grace` seconds it is killed."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self.ended()
        except TimeoutError:
            log.warning("envoy does not leave; killed")
            self.signal(signal.SIGKILL)
            await self.ended()
        for child in self._before:
            child.kill()
            child.wait()

    def abandon(self) -> None:
        """Leave it to whoever comes next."""
        for child in (*self._before, *([self._child] if self._child else [])):
            child.returncode = child.returncode or 0  # nobody waits for it any more

    def _base(self) -> str | None:
        """What Envoys that follow each other here share; None for the very first."""
        try:
            return (self._directory.path / _BASE).read_text().strip() or None
        except OSError:
            return None

    def _made(self, bootstrap: Json) -> str:
        return version_of([__version__, self._command.line(0, None), bootstrap])


def _runs_in(pid: int, directory: Path) -> bool:
    """Whether this process is alive and ours: its working directory says so."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and os.readlink(f"/proc/{pid}/cwd") == str(directory)
    except (OSError, IndexError):
        return False


async def _gone(pid: int) -> None:
    """Wait until a process, a child or not, has ended; or for a moment, where none can tell."""
    try:
        handle = os.pidfd_open(pid)
    except (OSError, AttributeError):
        await asyncio.sleep(_POLL)
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
