"""How often a client may send what costs it nothing and us much time.

Requests that are taken back at once (CVE-2023-44487), pings, settings, empty pieces of a body: of
each a client may send many for a while, and so many a second for ever. A worker serves its other
clients meanwhile, so that one who sends more is told to calm down and is let go.
"""

from collections.abc import Callable

from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    StreamReset,
    UnknownFrameReceived,
)

# In requests that are taken back, of which a worker manages some thousands a second.
_BURST, _EACH_SECOND = 500.0, 100.0
_CHEAP = (PingReceived, PriorityUpdated, RemoteSettingsChanged, UnknownFrameReceived)
_CHEAP_COST = 0.1


class FloodLimit:
    """Of one connection; `clock` in monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left, self._since = _BURST, clock()

    def keeps(self, event: Event) -> bool:
        """Whether a client that has sent this too keeps within bounds."""
        cost = _cost(event)
        if cost:
            now = self._clock()
            gained = (now - self._since) * _EACH_SECOND
            self._left, self._since = min(_BURST, self._left + gained) - cost, now
        return self._left >= 0


def _cost(event: Event) -> float:
    if isinstance(event, StreamReset):
        return 1.0 if event.remote_reset else 0.0
    empty = isinstance(event, DataReceived) and not event.data and event.stream_ended is None
    return _CHEAP_COST if empty or isinstance(event, _CHEAP) else 0.0
