"""Limits that hold for all workers together: counters in shared memory under a file lock.

The kernel releases the lock of a process that dies. A process that does not get the lock within
20 ms injects no fault, which is the harmless outcome.

    [0, 64)        active faults, one slot per worker
    [64, 1088)     performed faults, one slot per run
    [1088, 2112)   how many runs have had each run slot, one after another
    then a hash table of grants: 65,536 times (hash, run, count, since)

Every slot is an int64; `since` is a float64 of monotonic seconds.
"""

import fcntl
import math
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable
from enum import Enum
from hashlib import blake2b

from counterfault.proxy.faults.dose import Limit

WORKERS = 64
RUNS = 1024
GRANTS = 65536

_SLOT = struct.Struct("=q")
_GRANT = struct.Struct("=QQQd")
_SLOTS = _SLOT.size * (WORKERS + RUNS + RUNS)
_SIZE = _SLOTS + _GRANT.size * GRANTS
# Seconds to wait for the lock. It is held for microseconds, but its holder may be off its core.
_LOCK_TIMEOUT = 0.02
# Entries of the table, from the one that its hash names, in which a grant may be.
_PROBES = 32


class Grant(Enum):
    """Whether one more fault is within a limit; FULL: the table has no room to count it."""

    YES = "yes"
    NO = "no"
    FULL = "full"


def create() -> int:
    """Return a descriptor of new shared memory, for the `Budget` of each process."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("counterfault-budget")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _SIZE)
    return fd


class Budget:
    """The shared counters, seen by one of the processes that share them."""

    def __init__(
        self, fd: int, worker: int | None = None, elsewhere: Callable[[], int] = int
    ) -> None:
        """Map the counters.

        Args:
            fd: The descriptor that `create` has made.
            worker: The worker's own slot; None in the supervisor.
            elsewhere: Returns how many faults are active in no worker, such as Envoy's.
        """
        self.fd = fd
        self._memory = mmap.mmap(fd, _SIZE)
        self._worker = worker
        self._elsewhere = elsewhere
        if worker is not None:
            self.clear_worker(worker)

    def adopt(self, fd: int) -> None:
        """Use the counters of adopted workers, at `fd`, instead. The budget closes `fd`."""
        self._memory.close()
        os.close(self.fd)
        if os.fstat(fd).st_size < _SIZE:  # an older version has made it
            os.ftruncate(fd, _SIZE)
        self.fd, self._memory = fd, mmap.mmap(fd, _SIZE)

    def take(self, run: int, most_active: int, most_performed: int | None) -> bool:
        """Count one more fault of a run as active and performed.

        Returns False, and counts nothing, if a limit is reached or the lock is not to be had.
        """
        if self._worker is None or not self._lock():
            return False
        try:
            if self.active() >= most_active:
                return False
            performed = self._get(WORKERS + run)
            if most_performed is not None and performed >= most_performed:
                return False
            self._set(WORKERS + run, performed + 1)
            self._set(self._worker, self._get(self._worker) + 1)
            return True
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def release(self) -> None:
        """Count a fault as ended. Only this worker writes its slot, so there is no lock."""
        if self._worker is not None:
            self._set(self._worker, self._get(self._worker) - 1)

    def refund(self, run: int) -> None:
        """Count a fault of a run as not performed after all."""
        if self._lock():
            try:
                self._set(WORKERS + run, max(0, self._get(WORKERS + run) - 1))
            finally:
                fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def grant(self, run: int, what: bytes, limit: Limit, now: float) -> Grant:
        """Count one more fault under `what` if the limit allows it.

        Args:
            run: The slot of the run.
            what: The bytes that a limit counts by, such as a rule and its user.
            limit: How many, per which time.
            now: Seconds of the machine's monotonic clock, which all workers share.
        """
        if not self._lock():
            return Grant.FULL
        try:
            return self._grant(run, what, limit, now)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def _grant(self, run: int, what: bytes, limit: Limit, now: float) -> Grant:
        owner = self._owner(run)
        digest = int.from_bytes(blake2b(what, digest_size=8).digest(), "big") or 1
        entry = self._entry(digest, owner)
        if entry is None:
            return Grant.FULL
        found, _, count, since = _GRANT.unpack_from(self._memory, entry)
        if not found or (limit.every is not None and now - since >= limit.every):
            count, since = 0, now
        if count >= limit.most:
            return Grant.NO
        _GRANT.pack_into(self._memory, entry, digest, owner, count + 1, since)
        return Grant.YES

    def _entry(self, digest: int, owner: int) -> int | None:
        """Return the offset of a grant's entry, or of a free one, which is then emptied.

        An entry is free if no run or a run that is over has it. None if there is none to be had.
        """
        free = None
        for probe in range(_PROBES):
            entry = _SLOTS + _GRANT.size * ((digest + probe) % GRANTS)
            found, whose, _, _ = _GRANT.unpack_from(self._memory, entry)
            if found == digest and whose == owner:
                return entry
            if free is None and (not found or whose != self._owner(whose % RUNS)):
                free = entry
        if free is not None:
            _GRANT.pack_into(self._memory, free, 0, 0, 0, 0.0)
        return free

    def _owner(self, run: int) -> int:
        """Return a number for the run that has this slot now; no other run ever has the same."""
        return self._get(WORKERS + RUNS + run) * RUNS + run

    def active(self) -> int:
        """Return how many faults are active in all workers and elsewhere."""
        return sum(self._get(slot) for slot in range(WORKERS)) + self._elsewhere()

    def performed(self, run: int) -> int:
        """Return how many faults a run has performed."""
        return self._get(WORKERS + run)

    def clear_worker(self, worker: int) -> None:
        """Forget the active faults of a worker whose process has ended."""
        self._set(worker, 0)

    def clear_run(self, run: int) -> None:
        """Give a slot to a new run: no fault performed and nothing granted."""
        self._set(WORKERS + run, 0)
        slot = WORKERS + RUNS + run
        self._set(slot, self._get(slot) + 1)

    def _lock(self) -> bool:
        """Take the file lock. Returns False if it is not to be had within _LOCK_TIMEOUT."""
        end = math.inf
        while True:
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                now = time.monotonic()
                end = min(end, now + _LOCK_TIMEOUT)
                if now >= end:
                    return False
                os.sched_yield()  # the holder may be waiting for this very core
            else:
                return True

    def _get(self, slot: int) -> int:
        value: int = _SLOT.unpack_from(self._memory, slot * _SLOT.size)[0]
        return value

    def _set(self, slot: int, value: int) -> None:
        _SLOT.pack_into(self._memory, slot * _SLOT.size, value)
