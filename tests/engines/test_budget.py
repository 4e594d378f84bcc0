"""Limits that hold for all workers together."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from proxy.engines import budget
from proxy.engines.budget import Budget


def test_the_active_limit_holds_over_workers() -> None:
    fd = budget.create()
    one, other = Budget(fd, 0), Budget(fd, 1)
    assert [one.take(0, 3, None), other.take(0, 3, None), one.take(1, 3, None)] == [True] * 3
    assert not other.take(0, 3, None)
    one.give()
    assert other.take(0, 3, None)
    assert Budget(fd).active() == 3


def test_performed_faults_are_counted_per_run_and_never_given_back() -> None:
    fd = budget.create()
    worker = Budget(fd, 0)
    for _ in range(2):
        assert worker.take(7, 10, 2)
        worker.give()
    assert not worker.take(7, 10, 2)
    assert worker.take(8, 10, 2)
    supervisor = Budget(fd)
    assert (supervisor.performed(7), supervisor.performed(8)) == (2, 1)
    supervisor.clear_run(7)
    assert worker.take(7, 10, 2)


def test_a_worker_that_died_holds_nothing() -> None:
    fd = budget.create()
    Budget(fd, 3).take(0, 1, None)
    assert not Budget(fd, 4).take(0, 1, None)
    Budget(fd).clear_worker(3)
    assert Budget(fd, 4).take(0, 1, None)


HOLD = """
import fcntl, sys, time
fd = int(sys.argv[1])
fcntl.lockf(fd, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def test_a_lock_that_is_held_means_no_and_a_dead_holder_frees_it(
    until: Callable[..., Any],
) -> None:
    fd = budget.create()
    os.set_inheritable(fd, True)
    worker = Budget(fd, 0)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(fd)], pass_fds=(fd,), stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert not worker.take(0, 10, None)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert worker.take(0, 10, None)


SPIN = """
import sys
from proxy.engines.budget import Budget
worker = Budget(int(sys.argv[1]), int(sys.argv[2]))
print(sum(worker.take(0, 10**9, 5000) for _ in range(4000)))
"""


def test_two_workers_at_once_never_go_past_the_limit() -> None:
    fd = budget.create()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SPIN, str(fd), str(i)], pass_fds=(fd,), stdout=subprocess.PIPE
        )
        for i in range(2)
    ]
    taken = [int(w.communicate(timeout=60)[0]) for w in workers]
    assert sum(taken) == 5000 == Budget(fd).performed(0)
