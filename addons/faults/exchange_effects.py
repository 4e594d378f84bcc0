"""The effects that faults have on the bodies and heads of one exchange; most have none."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mitmproxy.http import Headers
from mitmproxy.proxy.commands import Command

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.body_edits import Cut, Flips
from counterfault.addons.faults.pacing import PacedQueue
from counterfault.proxy.faults.actions import Edit, Pace, Patch

# Bytes of a body that may be kept to change it as a whole, to send it again, or to cut off its end.
KEEP = 1 << 20


@dataclass(slots=True)
class ExchangeEffects:
    """Each effect comes with the fault that has it, and ends when that fault is over."""

    clock: Callable[[], float]
    """Returns monotonic seconds."""
    up: PacedQueue | None = None
    """Holds the request's events, if a fault limits their rate."""
    down: PacedQueue | None = None
    """Holds the response's events, if a fault limits their rate or has something held."""
    head_edits: list[tuple[Edit, ActiveFault]] = field(default_factory=list)
    """Changes of the response's head."""
    body_edits: list[tuple[Flips | Cut, ActiveFault]] = field(default_factory=list)
    """Changes of the response's body as it passes, in the order in which they apply."""
    patches: list[tuple[Patch, ActiveFault]] = field(default_factory=list)
    """Changes of the response's body as a whole."""
    copies: list[tuple[int, ActiveFault]] = field(default_factory=list)
    """How many more times the request is sent."""
    request_body: bytearray = field(default_factory=bytearray)
    """The request's body so far, while there are copies to send."""
    response_body: bytearray = field(default_factory=bytearray)
    """The response's body so far, while there is a patch."""
    waits: dict[Command, PacedQueue] = field(default_factory=dict)
    """The queue that each pending wait belongs to, by the hook that waits."""

    def limit_request_rate(self, pace: Pace, fault: ActiveFault) -> None:
        """Limit the rate of the request's body until the fault is over."""
        self.up = self.up or PacedQueue(self.clock)
        self.up.limit_rate(pace, fault)

    def limit_response_rate(self, pace: Pace, fault: ActiveFault) -> None:
        """Limit the rate of the response's body until the fault is over."""
        self.down = self.down or PacedQueue(self.clock)
        self.down.limit_rate(pace, fault)

    def edit_head(self, headers: Headers) -> None:
        """Change the response's head, in place."""
        for edit, fault in self.head_edits:
            if not fault.over:
                fault.performed()
                apply_edit(headers, edit)

    def keep_request_data(self, data: bytes) -> None:
        """Keep a part of the request's body for its copies; a request over KEEP bytes gets none."""
        if self.copies:
            self.request_body += data
            if len(self.request_body) > KEEP:
                self.drop_copies()

    def drop_copies(self) -> None:
        """Send no more copies of the request, and release their faults."""
        for _, fault in self.copies:
            fault.release()
        self.copies.clear()
        self.request_body.clear()

    def clear(self) -> None:
        """Drop all that is held, once the client does not wait for the exchange any more."""
        for queue in (self.up, self.down):
            if queue is not None:
                queue.clear()
        self.drop_copies()


def apply_edit(headers: Headers, edit: Edit) -> None:
    """Apply an edit to a head, in place; a header that it sets replaces all of that name."""
    gone = {*edit.remove, *(name for name, _ in edit.set)}
    kept = tuple(field for field in headers.fields if field[0].lower() not in gone)
    headers.fields = kept + edit.set
