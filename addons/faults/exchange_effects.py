"""What faults make of an exchange's bodies and heads; most exchanges have none of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mitmproxy.http import Headers

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.body_edits import Cut, Flips
from counterfault.addons.faults.pacing import PacedQueue
from counterfault.proxy.faults.actions import Edit, Pace, Patch

# Bytes of a body that may be kept to change it as a whole, to send it again, or to cut off its end.
KEEP = 1 << 20


@dataclass(slots=True)
class ExchangeEffects:
    """All of it begins with a claim and ends with it."""

    clock: Callable[[], float]
    up: PacedQueue | None = None
    down: PacedQueue | None = None
    edits: list[tuple[Edit, ActiveFault]] = field(default_factory=list)
    """Of the answer's head."""
    changes: list[tuple[Flips | Cut, ActiveFault]] = field(default_factory=list)
    """Of the answer's body as it passes, in their order."""
    patches: list[tuple[Patch, ActiveFault]] = field(default_factory=list)
    """Of the answer's body as a whole."""
    copies: list[tuple[int, ActiveFault]] = field(default_factory=list)
    """How many more times the request is sent."""
    sent: bytearray = field(default_factory=bytearray)
    """The request's body, as long as there are copies to make."""

    def slow_up(self, pace: Pace, claim: ActiveFault) -> None:
        self.up = self.up or PacedQueue(self.clock)
        self.up.slow(pace, claim)

    def slow_down(self, pace: Pace, claim: ActiveFault) -> None:
        self.down = self.down or PacedQueue(self.clock)
        self.down.slow(pace, claim)

    def edit(self, headers: Headers) -> None:
        """Change the answer's head."""
        for change, claim in self.edits:
            if not claim.over:
                claim.performed()
                edited(headers, change)

    def copy(self, data: bytes) -> None:
        """Remember a part of the request; of a long one there are no copies."""
        if self.copies:
            self.sent += data
            if len(self.sent) > KEEP:
                self.uncopy()

    def uncopy(self) -> None:
        for _, claim in self.copies:
            claim.release()
        self.copies.clear()
        self.sent.clear()

    def clear(self) -> None:
        """Nobody waits for the exchange any more."""
        for valve in (self.up, self.down):
            if valve is not None:
                valve.clear()
        self.uncopy()


def edited(headers: Headers, change: Edit) -> None:
    """Apply an edit to a head; a header that is set replaces all of its name."""
    gone = {*change.remove, *(name for name, _ in change.set)}
    kept = tuple(field for field in headers.fields if field[0].lower() not in gone)
    headers.fields = kept + change.set
