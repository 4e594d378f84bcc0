"""One direction of a raw connection: a paced queue that a fault may cut short."""

from collections.abc import Callable

from mitmproxy.proxy import commands, events

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.pacing import PacedQueue, Wait
from counterfault.proxy.engines.plan import EachMessage


class Direction:
    """The data on its way from one end of a raw connection to the other."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self.queue = PacedQueue(clock)
        self.delay_rules: tuple[EachMessage, ...] = ()
        """The rules whose delays are drawn for each piece of data that is read."""
        self.waiting: commands.Command | None = None
        """The wait that has to end before the next piece goes on."""
        self.ended = False
        """Whether the sender has closed, and all that it sent has gone on."""
        self._cut: ActiveFault | None = None
        self._left = 0

    def cut_after(self, size: int, fault: ActiveFault) -> None:
        """Let `size` more bytes through and then none, until the fault is over."""
        self._left, self._cut = size, fault

    def next(self) -> tuple[events.Event | Wait | None, ActiveFault | None]:
        """Return what `PacedQueue.next` does, and a fault if this is the last event before a cut.

        While a wait goes on there is no next event.
        """
        if self.waiting is not None:
            return None, None
        following = self.queue.next()
        if self._cut is None or not isinstance(following, events.DataReceived):
            return following, None
        if self._cut.over:
            self._cut = None
            return following, None
        last = len(following.data) >= self._left
        following.data = following.data[: self._left]
        self._left -= len(following.data)
        return following, self._cut if last else None
