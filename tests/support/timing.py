"""Whether something is done within 250 ms, on a machine that others use too."""

import threading
import time

# Issue 5: "a fault that ends releases whatever it holds within 250 ms".
RELEASE_LIMIT = 0.250
_NAP = 0.002
# The supervisor, a worker or Envoy, and we: each may have to wait for the processor.
_PROCESSES = 3


class ReleaseTimer(threading.Thread):
    """Measures what is done within `with`, and how late the machine lets anybody go on meanwhile.

    On a machine that is free that is a millisecond, and the promise is held to its word.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.late = 0.0
        self.took = 0.0

    def run(self) -> None:
        while not self._over.is_set():
            start = time.monotonic()
            time.sleep(_NAP)
            self.late = max(self.late, time.monotonic() - start - _NAP)

    def __enter__(self) -> "ReleaseTimer":
        self.start()
        self._start = time.monotonic()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.took = time.monotonic() - self._start
        self._over.set()
        self.join()
        if kind is None:
            most = RELEASE_LIMIT + _PROCESSES * self.late
            assert self.took < most, f"{self.took:.3f} s, {self.late:.3f} of them the machine's"
