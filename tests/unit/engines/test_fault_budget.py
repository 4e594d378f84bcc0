"""Limits that hold for all workers together."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from counterfault.proxy.engines import fault_budget
from counterfault.proxy.engines.fault_budget import Budget, Grant
from counterfault.proxy.faults.dose import Limit


def test_the_active_limit_holds_over_workers() -> None:
    fd = fault_budget.create()
    one, other = Budget(fd, 0), Budget(fd, 1)
    assert [one.take(0, 3, None), other.take(0, 3, None), one.take(1, 3, None)] == [True] * 3
    assert not other.take(0, 3, None)
    one.release()
    assert other.take(0, 3, None)
    assert Budget(fd).active() == 3


def test_performed_faults_are_counted_per_run_and_never_given_back() -> None:
    fd = fault_budget.create()
    worker = Budget(fd, 0)
    for _ in range(2):
        assert worker.take(7, 10, 2)
        worker.release()
    assert not worker.take(7, 10, 2)
    assert worker.take(8, 10, 2)
    supervisor = Budget(fd)
    assert (supervisor.performed(7), supervisor.performed(8)) == (2, 1)
    supervisor.clear_run(7)
    assert worker.take(7, 10, 2)


def test_a_worker_that_died_holds_nothing() -> None:
    fd = fault_budget.create()
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
    fd = fault_budget.create()
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
from counterfault.proxy.engines.fault_budget import Budget
worker = Budget(int(sys.argv[1]), int(sys.argv[2]))
print(sum(worker.take(0, 10**9, 5000) for _ in range(4000)))
"""


def test_two_workers_at_once_never_go_past_the_limit() -> None:
    fd = fault_budget.create()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SPIN, str(fd), str(i)], pass_fds=(fd,), stdout=subprocess.PIPE
        )
        for i in range(2)
    ]
    taken = [int(w.communicate(timeout=60)[0]) for w in workers]
    assert sum(taken) == 5000 == Budget(fd).performed(0)


def test_a_limit_holds_over_workers_and_for_each_by_itself() -> None:
    fd = fault_budget.create()
    one, other = Budget(fd, 0), Budget(fd, 1)
    first = Limit(2, None)
    asked = [worker.grant(0, b"ann", first, 0.0) for worker in (one, other, one, other)]
    assert asked == [Grant.YES, Grant.YES, Grant.NO, Grant.NO]
    assert one.grant(0, b"bob", first, 0.0) is Grant.YES
    assert one.grant(1, b"ann", first, 0.0) is Grant.YES


def test_a_burst_begins_anew_after_its_time() -> None:
    worker = Budget(fault_budget.create(), 0)
    burst = Limit(2, 10.0)
    times = (0.0, 5.0, 9.9, 10.0, 19.0, 19.9, 31.0)
    granted = [worker.grant(0, b"", burst, now) is Grant.YES for now in times]
    assert granted == [True, True, False, True, True, False, True]


def test_a_new_run_in_the_same_cell_remembers_nothing() -> None:
    worker = Budget(fault_budget.create(), 0)
    assert worker.grant(7, b"ann", Limit(1, None), 0.0) is Grant.YES
    Budget(worker.fd).clear_run(7)
    assert worker.grant(7, b"ann", Limit(1, None), 0.0) is Grant.YES
    assert worker.grant(7, b"ann", Limit(1, None), 0.0) is Grant.NO


def test_what_cannot_be_remembered_is_not_granted_until_its_run_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fault_budget, "GRANTS", 64)
    worker = Budget(fault_budget.create(), 0)
    once = Limit(1, None)
    granted = [worker.grant(0, b"%d" % i, once, 0.0) for i in range(500)]
    assert granted.count(Grant.YES) == 64
    assert granted.count(Grant.FULL) == 500 - 64
    assert worker.grant(0, b"0", once, 0.0) is Grant.NO
    Budget(worker.fd).clear_run(0)
    assert worker.grant(1, b"0", once, 0.0) is Grant.YES


def test_memory_of_an_older_version_is_made_to_fit() -> None:
    old = os.memfd_create("old")
    os.ftruncate(old, 8 * (fault_budget.WORKERS + fault_budget.RUNS))
    supervisor = Budget(fault_budget.create())
    supervisor.adopt(old)
    assert Budget(old, 0).grant(0, b"ann", Limit(1, None), 0.0) is Grant.YES


GRANT = """
import sys
from counterfault.proxy.faults.dose import Limit
from counterfault.proxy.engines.fault_budget import Budget, Grant
worker = Budget(int(sys.argv[1]), int(sys.argv[2]))
asked = (worker.grant(0, b"%d" % (i % 10), Limit(100, None), 0.0) for i in range(4000))
print(sum(granted is Grant.YES for granted in asked))
"""


def test_two_workers_at_once_never_grant_more_than_the_limit() -> None:
    fd = fault_budget.create()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", GRANT, str(fd), str(i)], pass_fds=(fd,), stdout=subprocess.PIPE
        )
        for i in range(2)
    ]
    assert sum(int(w.communicate(timeout=60)[0]) for w in workers) == 1000


def test_a_fault_that_failed_does_not_count_as_performed() -> None:
    worker = Budget(fault_budget.create(), 0)
    assert worker.take(0, 1, 1)
    worker.refund(0)
    worker.release()
    assert worker.take(0, 1, 1)
