"""What the demo starts is surely stopped."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from counterfault.proxy.demo.processes import DemoError, Processes, free_ports, get

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def module(directory: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that `python -m` finds."""
    (directory / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    return name


def ended(pid: int) -> bool:
    """Whether a process is gone; a zombie that nobody has waited for yet is."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_ports_are_free_and_differ() -> None:
    ports = free_ports(9)
    assert len(set(ports)) == 9
    for port in ports:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))


def test_nobody_at_a_port_is_an_error() -> None:
    with pytest.raises(OSError, match="refused"):
        get(free_ports(1)[0], "/")


def test_a_process_that_ends_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(tmp_path, "ends", "raise SystemExit('no such port')", monkeypatch)
    with Processes(tmp_path) as processes:
        processes.start("shop", name)
        with pytest.raises(DemoError, match=r"shop ended with 1; its last words:\n.*no such port"):
            processes.wait("starting the shop", lambda: False)


def test_a_process_that_is_not_ready_in_time_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(tmp_path, "sleeps", "import time; time.sleep(600)", monkeypatch)
    with Processes(tmp_path) as processes:
        processes.start("shop", name)
        with pytest.raises(DemoError, match=r"starting took more than 0\.2 s"):
            processes.wait("starting", lambda: False, patience=0.2)


def test_even_a_stubborn_process_and_its_children_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfault.proxy.demo.processes.GRACE", 0.1)
    name = module(tmp_path, "stubborn", STUBBORN, monkeypatch)
    log = tmp_path / "shop.log"
    with Processes(tmp_path) as processes:
        processes.start("shop", name)
        processes.wait("starting", lambda: bool(log.read_text().strip()))
        child = int(log.read_text())
        assert not ended(child)
    with Processes(tmp_path) as processes:
        processes.wait("the child's end", lambda: ended(child))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_what_was_started(tmp_path: Path, number: signal.Signals) -> None:
    # Whatever a shell starts in the background ignores SIGINT, these tests and theirs too.
    program = f"""
import signal
from pathlib import Path
from counterfault.proxy.demo.processes import Processes, ended_by_signals
signal.signal(signal.SIGINT, signal.default_int_handler)
with ended_by_signals(), Processes(Path({str(tmp_path)!r})) as processes:
    processes.start("shop", "http.server", "0", "--bind", "127.0.0.1")
    print(processes.pids()[0], flush=True)
    processes.wait("for ever", lambda: False)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert ended(child)
