"""One direction of a raw connection: held back by a valve, and perhaps cut short."""

from collections.abc import Callable

from mitmproxy.proxy import commands, events

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.pacing import PacedQueue, Wait
from counterfault.proxy.engines.plan import EachMessage


class Direction:
    """`clock` in monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.valve = PacedQueue(clock)
        self.delays: tuple[EachMessage, ...] = ()
        """Drawn anew for each piece that is read."""
        self.waits: commands.Command | None = None
        """Until then nothing goes on."""
        self.ended = False
        """Its end has come through, and all that was before it."""
        self._cut: ActiveFault | None = None
        self._left = 0

    def cut(self, after: int, claim: ActiveFault) -> None:
        """Let so many bytes through, and then no more, until the claim is over."""
        self._left, self._cut = after, claim

    def next(self) -> tuple[events.Event | Wait | None, ActiveFault | None]:
        """What goes on now, as from the valve; with a claim, it is the last before the cut."""
        if self.waits is not None:
            return None, None
        following = self.valve.next()
        if self._cut is None or not isinstance(following, events.DataReceived):
            return following, None
        if self._cut.over:
            self._cut = None
            return following, None
        last = len(following.data) >= self._left
        following.data = following.data[: self._left]
        self._left -= len(following.data)
        return following, self._cut if last else None
