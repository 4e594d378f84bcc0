"""A limit on HTTP/2 frames that cost the client nothing and a worker much time.

These are requests that the client resets at once (CVE-2023-44487), pings, settings and empty DATA
frames. It is a token bucket: a client may send many for a while, and a certain rate for ever. The
connection of a client that sends more is ended with ENHANCE_YOUR_CALM, since a worker has other
clients to serve.
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

# In requests that are reset, of which a worker manages some thousands a second.
_BURST, _PER_SECOND = 500.0, 100.0
_CHEAP = (PingReceived, PriorityUpdated, RemoteSettingsChanged, UnknownFrameReceived)
_CHEAP_COST = 0.1


class FloodLimit:
    """The limit for one connection."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._left, self._since = _BURST, clock()

    def allows(self, event: Event) -> bool:
        """Count an event, and return whether the client is within its limit."""
        cost = _cost(event)
        if cost:
            now = self._clock()
            gained = (now - self._since) * _PER_SECOND
            self._left, self._since = min(_BURST, self._left + gained) - cost, now
        return self._left >= 0


def _cost(event: Event) -> float:
    if isinstance(event, StreamReset):
        return 1.0 if event.remote_reset else 0.0
    empty = isinstance(event, DataReceived) and not event.data and event.stream_ended is None
    return _CHEAP_COST if empty or isinstance(event, _CHEAP) else 0.0
