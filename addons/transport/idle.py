"""When a connection was last active: one sweep looks at all, instead of a timer for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """When data last came or a layer last worked, in seconds of a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._suspended = 0
        self.last = clock()
        self._head_since: float | None = None
        """When the sweep first saw that a request's head is incomplete; it is so still."""

    def register_activity(self) -> None:
        """The connection is active now."""
        self.last = self._clock()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """While inside, the connection is never idle: a hook waits, and nothing can move."""
        self._suspended += 1
        try:
            yield
        finally:
            self._suspended -= 1
            self.register_activity()

    def expired(self, head_pending: bool, idle: float, head: float) -> bool:
        """Return whether the connection has outlived a limit.

        Args:
            head_pending: A request's head has begun to come and is incomplete.
            idle: Seconds that it may be inactive.
            head: Seconds that a head may stay incomplete, since a call first saw one.
        """
        now = self._clock()
        if not head_pending:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = now
        if self._head_since is not None and now - self._head_since > head:
            return True
        return not self._suspended and now - self.last > idle
