"""When a connection last moved; one sweep looks at all, instead of a task for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """When something last came or was done, on a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held = 0
        self.last = clock()
        self.head_since: float | None = None
        """Since when a request's head is incomplete, as far as the sweep has seen."""

    def register_activity(self) -> None:
        self.last = self._clock()

    @contextmanager
    def disarm(self) -> Iterator[None]:
        """A hook waits, so that nothing can move."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self.register_activity()

    def too_long(self, head_pending: bool, idle: float, head: float) -> bool:
        """Whether the connection has outlived its limits, in seconds."""
        now = self._clock()
        if not head_pending:
            self.head_since = None
        elif self.head_since is None:
            self.head_since = now
        if self.head_since is not None and now - self.head_since > head:
            return True
        return not self._held and now - self.last > idle
