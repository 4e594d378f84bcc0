"""Envoy's process: started, watched, replaced without a gap, adopted from who was before us."""

import asyncio
import logging
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from counterfault import __version__
from counterfault.proxy.engines.envoy.config.names import BOOTSTRAP, LINES, Json
from counterfault.proxy.engines.envoy.runtime.run_directory import (
    LOG,
    PID,
    RunDirectory,
    version_of,
)

log = logging.getLogger("counterfault")

_BASE = "base-id"
_POLL = 0.05
# How often Envoy hands over its lines.
_FLUSH_MS = 50
# An Envoy that can be replaced ends with its parent (PR_SET_PDEATHSIG). So it gets none: it is
# started when its parent, the shell, has ended, which the end of its standard input tells it.
_ORPHAN = 'exec 3<&0; (read _ <&3; exec "$@" 3<&- </dev/null) >&2 & echo $!'


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
            "--skip-hot-restart-parent-stats",
        ]


class EnvoyProcess:
    """At most one Envoy that counts; one that it has replaced finishes what it has, and leaves."""

    def __init__(self, directory: RunDirectory, command: Command) -> None:
        self._directory, self._command = directory, command
        self.pid = 0
        self.epoch = 0
        self._made = ""
        self._before: list[int] = []

    @property
    def incarnation(self) -> str:
        return f"envoy-{self.pid}"

    def adopt(self, bootstrap: Json, *, serves: bool = True) -> bool:
        """Take over the Envoy of a supervisor before us; False if there is none.

        One that was started otherwise than we would, or listens no more, is replaced.
        """
        about = self._directory.get(PID)
        pid = about.get("pid", 0)
        if not isinstance(pid, int) or not _runs_in(pid, self._directory.path):
            return False
        self.pid, self.epoch = pid, int(about["epoch"])
        self._made = str(about["made"]) if serves else ""
        self.suit(bootstrap)
        return True

    def suit(self, bootstrap: Json) -> bool:
        """Replace one that was started otherwise than this needs; True if that had to be."""
        if not self.alive() or self._made == self._name(bootstrap):
            return False
        log.info("envoy (pid %d) is replaced", self.pid)
        self._before.append(self.pid)
        self.start(bootstrap, self.epoch + 1)
        return True

    def start(self, bootstrap: Json, epoch: int = 0) -> None:
        """Start an Envoy; past epoch 0 it takes the sockets of the one before."""
        self._directory.put(BOOTSTRAP, bootstrap)
        self.epoch, self._made = epoch, self._name(bootstrap)
        self.pid = self._orphan(self._command.line(epoch, self._base()))
        self._directory.put(PID, {"pid": self.pid, "epoch": epoch, "made": self._made})

    def _orphan(self, line: list[str]) -> int:
        # Not blocking: Envoy must not wait for us when it has much to say. It keeps its pipes open
        # itself, so that what it says meanwhile is there for the next supervisor.
        said = os.open(self._directory.path / LOG, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        kept = [self._directory.open_pipe(name) for name in (LINES, LOG)]
        wait, go = os.pipe()
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", _ORPHAN, "sh", *line],
                pass_fds=kept,
                cwd=self._directory.path,
                stdin=wait,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
                check=True,
            )
        finally:
            for handle in (said, *kept, wait, go):
                os.close(handle)
        return int(done.stdout)

    async def ended(self) -> None:
        """Wait until the present one is gone."""
        while self.alive():
            await _gone(self.pid)

    def alive(self) -> bool:
        return _runs_in(self.pid, self._directory.path)

    def signal(self, number: int) -> None:
        self._send(self.pid, number)

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
        for pid in self._before:
            self._send(pid, signal.SIGKILL)

    def _send(self, pid: int, number: int) -> None:
        if _runs_in(pid, self._directory.path):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _base(self) -> str | None:
        """What Envoys that follow each other here share; None for the very first."""
        try:
            return (self._directory.path / _BASE).read_text().strip() or None
        except OSError:
            return None

    def _name(self, bootstrap: Json) -> str:
        return version_of([__version__, self._command.line(0, None), bootstrap])


def _runs_in(pid: int, directory: Path) -> bool:
    """Whether this process is alive and ours: its working directory says so."""
    with suppress(OSError):
        os.waitpid(pid, os.WNOHANG)  # where we are process 1, orphans are our children
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return pid > 0 and state != "Z" and os.readlink(f"/proc/{pid}/cwd") == str(directory)
    except (OSError, IndexError):
        return False


async def _gone(pid: int) -> None:
    """Wait until a process has ended; or for a moment, where none can tell."""
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
