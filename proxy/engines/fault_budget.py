"""Limits that hold for all workers together: counters in shared memory under a file lock.

The kernel releases the lock of a process that dies; a lock that cannot be had soon counts as "no":
a fault not injected is the harmless outcome.

    [0, 64)        faults active, one cell per worker
    [64, 1088)     faults performed, one cell per run
    [1088, 2112)   how often each of these cells has had a new run
    then a hash table of what has been granted: 65,536 of (hash, run, count, since)
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

_CELL = struct.Struct("=q")
_GRANT = struct.Struct("=QQQd")
_CELLS = _CELL.size * (WORKERS + RUNS + RUNS)
_SIZE = _CELLS + _GRANT.size * GRANTS
# Seconds for a lock that is held for microseconds, by a process that may have lost its core.
_SOON = 0.02
# Places of the table at which a grant may be.
_PROBES = 32


class Grant(Enum):
    """Whether one more is within a limit; FULL: there is no room to remember it."""

    YES = "yes"
    NO = "no"
    FULL = "full"


def create() -> int:
    """A descriptor of fresh shared memory, to be handed to `Budget` here and in each worker."""
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
            worker: The worker's own cell; None in the supervisor.
            elsewhere: Returns how many faults are active in no worker, such as Envoy's.
        """
        self.fd = fd
        self._memory = mmap.mmap(fd, _SIZE)
        self._worker = worker
        self._elsewhere = elsewhere
        if worker is not None:
            self.clear_worker(worker)

    def adopt(self, fd: int) -> None:
        """Use the counters of workers that were there before us."""
        self._memory.close()
        os.close(self.fd)
        if os.fstat(fd).st_size < _SIZE:  # an older version's
            os.ftruncate(fd, _SIZE)
        self.fd, self._memory = fd, mmap.mmap(fd, _SIZE)

    def take(self, run: int, most_active: int, most_performed: int | None) -> bool:
        """Claim one fault of a run; False if a limit is reached."""
        if self._worker is None or not self._locked():
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

    def give(self) -> None:
        """A claimed fault has ended. The cell is this worker's own: no lock."""
        if self._worker is not None:
            self._set(self._worker, self._get(self._worker) - 1)

    def undo(self, run: int) -> None:
        """A claimed fault could not be performed: it does not count."""
        if self._locked():
            try:
                self._set(WORKERS + run, max(0, self._get(WORKERS + run) - 1))
            finally:
                fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def grant(self, run: int, what: bytes, limit: Limit, now: float) -> Grant:
        """One more of `what`, such as a rule and its user, if the limit allows it.

        `now` in seconds of the machine's monotonic clock, which all workers share.
        """
        if not self._locked():
            return Grant.FULL
        try:
            return self._grant(run, what, limit, now)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def _grant(self, run: int, what: bytes, limit: Limit, now: float) -> Grant:
        owner = self._owner(run)
        digest = int.from_bytes(blake2b(what, digest_size=8).digest(), "big") or 1
        place = self._place(digest, owner)
        if place is None:
            return Grant.FULL
        found, _, count, since = _GRANT.unpack_from(self._memory, place)
        if not found or (limit.every is not None and now - since >= limit.every):
            count, since = 0, now
        if count >= limit.most:
            return Grant.NO
        _GRANT.pack_into(self._memory, place, digest, owner, count + 1, since)
        return Grant.YES

    def _place(self, digest: int, owner: int) -> int | None:
        """Where the grant is, else a free place, emptied; a run that is over has none."""
        free = None
        for probe in range(_PROBES):
            place = _CELLS + _GRANT.size * ((digest + probe) % GRANTS)
            found, whose, _, _ = _GRANT.unpack_from(self._memory, place)
            if found == digest and whose == owner:
                return place
            if free is None and (not found or whose != self._owner(whose % RUNS)):
                free = place
        if free is not None:
            _GRANT.pack_into(self._memory, free, 0, 0, 0, 0.0)
        return free

    def _owner(self, run: int) -> int:
        return self._get(WORKERS + RUNS + run) * RUNS + run

    def active(self) -> int:
        """Faults under way in all workers, and elsewhere."""
        return sum(self._get(cell) for cell in range(WORKERS)) + self._elsewhere()

    def performed(self, run: int) -> int:
        return self._get(WORKERS + run)

    def clear_worker(self, worker: int) -> None:
        """Its process is gone, and its faults with it."""
        self._set(worker, 0)

    def clear_run(self, run: int) -> None:
        self._set(WORKERS + run, 0)
        cell = WORKERS + RUNS + run
        self._set(cell, self._get(cell) + 1)

    def _locked(self) -> bool:
        end = math.inf
        while True:
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                now = time.monotonic()
                end = min(end, now + _SOON)
                if now >= end:
                    return False
                os.sched_yield()  # the holder may be waiting for this very core
            else:
                return True

    def _get(self, cell: int) -> int:
        value: int = _CELL.unpack_from(self._memory, cell * _CELL.size)[0]
        return value

    def _set(self, cell: int, value: int) -> None:
        _CELL.pack_into(self._memory, cell * _CELL.size, value)
