"""Envoy's process: started, watched, replaced without a gap, adopted from another supervisor."""

import asyncio
import logging
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from counterfault import __version__
from counterfault.proxy.engines.envoy.config.names import BOOTSTRAP_FILE, Json
from counterfault.proxy.engines.envoy.runtime.run_directory import (
    LOG,
    PID,
    PIPES,
    RunDirectory,
    version_of,
)

log = logging.getLogger("counterfault")

_BASE_ID_FILE = "base-id"
_POLL = 0.05
# Milliseconds after which Envoy writes its access-log lines to the pipe.
_FLUSH_MS = 50
# An Envoy with hot restart ends with its parent (PR_SET_PDEATHSIG), but it must outlive the
# supervisor. So a shell forks a subshell and exits; the subshell waits for the end of a pipe, which
# we close after the shell's exit, and then becomes Envoy: an orphan from its start.
_ORPHAN = 'exec 3<&0; (read _ <&3; exec "$@" 3<&- </dev/null) >&2 & echo $!'


@dataclass(frozen=True, slots=True)
class EnvoyCommand:
    """How Envoy is started.

    Attributes:
        binary: The path of the program.
        concurrency: The number of its threads.
        drain: Seconds for requests under way when it is replaced.
    """

    binary: str
    concurrency: int
    drain: float

    def arguments(self, epoch: int, base_id: str | None) -> list[str]:
        """Return the command line.

        Args:
            epoch: How many processes came before this one by hot restart.
            base_id: Envoy's name for what these processes share; None to let it choose one.
        """
        shared = ["--base-id", base_id] if base_id else ["--use-dynamic-base-id"]
        drain = max(1, round(self.drain))
        return [
            *(self.binary, "--config-path", BOOTSTRAP_FILE, "--concurrency", str(self.concurrency)),
            *(*shared, "--base-id-path", _BASE_ID_FILE, "--restart-epoch", str(epoch)),
            *("--drain-time-s", str(drain), "--parent-shutdown-time-s", str(drain + 1)),
            *("--drain-strategy", "immediate", "--file-flush-interval-msec", str(_FLUSH_MS)),
            *("--log-level", "warning", "--component-log-level", "misc:critical"),
            *("--log-format", "%l %v", "--reject-unknown-dynamic-fields"),
            "--skip-hot-restart-parent-stats",
        ]


class EnvoyProcess:
    """The present Envoy process; one that it replaced finishes its requests and ends by itself."""

    def __init__(self, directory: RunDirectory, command: EnvoyCommand) -> None:
        self._directory, self._command = directory, command
        self.pid = 0
        self.epoch = 0
        self._fingerprint = ""
        self._replaced: list[int] = []

    @property
    def incarnation(self) -> str:
        """A name for this process, under which its counts are kept apart from another one's."""
        return f"envoy-{self.pid}"

    def adopt(self, bootstrap: Json, *, serves: bool = True) -> bool:
        """Take over the Envoy that an earlier supervisor has left; False if there is none.

        Args:
            bootstrap: What Envoy should have been started with; if it was not, it is replaced.
            serves: Whether it still listens; if it does not, it is replaced.
        """
        record = self._directory.read_file(PID)
        pid = record.get("pid", 0)
        if not isinstance(pid, int) or not _runs_in(pid, self._directory.path):
            return False
        self.pid, self.epoch = pid, int(record["epoch"])
        self._fingerprint = str(record["made"]) if serves else ""
        self.restart_if_changed(bootstrap)
        return True

    def restart_if_changed(self, bootstrap: Json) -> bool:
        """Replace a running Envoy that was started with another command or bootstrap.

        Returns:
            Whether it was replaced.
        """
        if not self.alive() or self._fingerprint == self._fingerprint_of(bootstrap):
            return False
        log.info("envoy (pid %d) is replaced", self.pid)
        self._replaced.append(self.pid)
        self.start(bootstrap, self.epoch + 1)
        return True

    def start(self, bootstrap: Json, epoch: int = 0) -> None:
        """Start an Envoy. From epoch 1 on it takes over the sockets of the one before.

        Raises OSError, or CalledProcessError if the shell fails.
        """
        self._directory.write_file(BOOTSTRAP_FILE, bootstrap)
        self.epoch, self._fingerprint = epoch, self._fingerprint_of(bootstrap)
        self.pid = self._spawn_orphan(self._command.arguments(epoch, self._base_id()))
        self._directory.write_file(
            PID, {"pid": self.pid, "epoch": epoch, "made": self._fingerprint}
        )

    def _spawn_orphan(self, arguments: list[str]) -> int:
        # Envoy's log is not blocking, so that Envoy never waits for us to read it. Envoy inherits
        # all pipes, which keeps what it writes there for the next supervisor.
        stderr = os.open(self._directory.path / LOG, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        kept = [self._directory.open_pipe(name) for name in PIPES]
        wait, go = os.pipe()
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", _ORPHAN, "sh", *arguments],
                pass_fds=kept,
                cwd=self._directory.path,
                stdin=wait,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                check=True,
            )
        finally:
            for handle in (stderr, *kept, wait, go):
                os.close(handle)
        return int(done.stdout)

    async def wait_ended(self) -> None:
        """Wait until the present process has ended."""
        while self.alive():
            await _wait_gone(self.pid)

    def alive(self) -> bool:
        """Whether the present process runs."""
        return _runs_in(self.pid, self._directory.path)

    def signal(self, number: int) -> None:
        """Send a signal to the present process, if it runs."""
        self._send(self.pid, number)

    async def stop(self, grace: float) -> None:
        """End the present process, by SIGKILL after `grace` seconds, and all that it replaced."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self.wait_ended()
        except TimeoutError:
            log.warning("envoy does not exit; killed")
            self.signal(signal.SIGKILL)
            await self.wait_ended()
        for pid in self._replaced:
            self._send(pid, signal.SIGKILL)

    def _send(self, pid: int, number: int) -> None:
        if _runs_in(pid, self._directory.path):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _base_id(self) -> str | None:
        """Return Envoy's name for what successive processes share; None before the first one."""
        try:
            return (self._directory.path / _BASE_ID_FILE).read_text().strip() or None
        except OSError:
            return None

    def _fingerprint_of(self, bootstrap: Json) -> str:
        return version_of([__version__, self._command.arguments(0, None), bootstrap])


def _runs_in(pid: int, directory: Path) -> bool:
    """Whether the process runs and is our Envoy, which its working directory shows."""
    with suppress(OSError):
        os.waitpid(pid, os.WNOHANG)  # as process 1 of a container we must reap orphans
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return pid > 0 and state != "Z" and os.readlink(f"/proc/{pid}/cwd") == str(directory)
    except (OSError, IndexError):
        return False


async def _wait_gone(pid: int) -> None:
    """Wait until a process has ended; where pidfd is missing, for 50 ms."""
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
