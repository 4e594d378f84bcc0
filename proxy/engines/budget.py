"""Limits that hold for all workers together: counters in shared memory under a file lock.

The kernel releases the lock of a process that dies; a lock that cannot be had at once counts as
"no": a fault not injected is the harmless outcome.

    [0, 64)      faults active, one cell per worker
    [64, 1088)   faults performed, one cell per run
"""

import fcntl
import mmap
import os
import struct
import tempfile

WORKERS = 64
RUNS = 1024

_CELL = struct.Struct("=q")
_SIZE = _CELL.size * (WORKERS + RUNS)
_TRIES = 1000


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
    """The shared counters, seen by the worker in cell `worker` (None: the supervisor)."""

    def __init__(self, fd: int, worker: int | None = None) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, _SIZE)
        self._worker = worker
        if worker is not None:
            self.clear_worker(worker)

    def adopt(self, fd: int) -> None:
        """Use the counters of workers that were there before us."""
        self._memory.close()
        os.close(self.fd)
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

    def active(self) -> int:
        """Faults under way in all workers."""
        return sum(self._get(cell) for cell in range(WORKERS))

    def performed(self, run: int) -> int:
        return self._get(WORKERS + run)

    def clear_worker(self, worker: int) -> None:
        """Its process is gone, and its faults with it."""
        self._set(worker, 0)

    def clear_run(self, run: int) -> None:
        self._set(WORKERS + run, 0)

    def _locked(self) -> bool:
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            return True
        return False

    def _get(self, cell: int) -> int:
        value: int = _CELL.unpack_from(self._memory, cell * _CELL.size)[0]
        return value

    def _set(self, cell: int, value: int) -> None:
        _CELL.pack_into(self._memory, cell * _CELL.size, value)
