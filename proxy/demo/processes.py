"""Starts the demo's processes, waits for them, and stops them however the demo ends."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
# How long to wait for a process to be ready, and for one to end after SIGTERM, in seconds.
PATIENCE = 30.0
GRACE = 10.0
# The kernel gives connections ports above these, those of the demo's users included.
_PORTS = range(20_000, 32_000)
# How many lines of a log an error shows.
_TAIL = 15
# How often to look again while waiting, in seconds.
_STEP = 0.1
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, all different. Raises DemoError."""
    free = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(port))
    found = list(islice(free, count))
    if len(found) < count:
        raise DemoError(f"fewer than {count} ports are free at {HOST}")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
        return True


def get(port: int, path: str) -> Any:
    """Return the JSON or the text at a local port; raise OSError unless the status is 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as e:
        raise OSError(f"no answer at {HOST}:{port}{path}: {e!r}") from e
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{answer.status} at {HOST}:{port}{path}: {body[:200].decode('latin-1')}")
    is_json = "json" in answer.headers.get_content_type()
    return json.loads(body) if is_json else body.decode()


class Processes:
    """Child processes; leaving the context stops them, the last one first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _undisturbed():
            for name in reversed(list(self._running)):
                self._stop(self._running.pop(name))

    def start(self, name: str, module: str, *args: str) -> None:
        """Run `python -m MODULE ARGS`; its output goes to NAME.log."""
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # so that ^C reaches only the demo, which stops them in order
            )

    def pids(self) -> list[int]:
        """Return the pids of the processes that run."""
        return [process.pid for process in self._running.values()]

    def check(self) -> None:
        """Raise DemoError with the end of the log of a process that has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                said = self._tail(name)
                raise DemoError(f"{name} ended with {process.returncode}; its last words:\n{said}")

    def wait(self, what: str, true: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until `true()`; raise DemoError if a process ends or `patience` seconds pass."""
        end = time.monotonic() + patience
        while not true():
            self.check()
            if time.monotonic() > end:
                logs = "\n".join(f"{name}:\n{self._tail(name)}" for name in self._running)
                raise DemoError(f"{what} took more than {patience:g} s; last words:\n{logs}")
            time.sleep(_STEP)

    def answers(self, what: str, port: int, path: str) -> None:
        """Wait until a GET gets a response with status 200."""
        self.wait(what, lambda: _is_up(port, path))

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL:] or ["(nothing)"])

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        # The rest of its process group: itself if it did not end, or workers that it left behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_up(port: int, path: str) -> bool:
    try:
        get(port, path)
    except OSError:
        return False
    return True


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore signals that end the demo: a second ^C must not leave processes behind."""
    before = {n: signal.signal(n, signal.SIG_IGN) for n in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo as ^C does."""

    def end(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {n: signal.signal(n, end) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
