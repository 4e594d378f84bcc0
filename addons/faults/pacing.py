"""What flows in one direction, held back by faults: at a pace, or each message for a while.

Protocol-neutral: a valve is put events and gives them back in their order, those with `data` in
pieces, and says how long to wait for the next one.

    put ──▶ [event, event, …] ──▶ next ──▶ on its way
                                   └─────▶ or a Wait: ask again when it is over
"""

from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from mitmproxy.proxy.commands import StartHook
from mitmproxy.proxy.layer import Layer

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.proxy.faults.actions import Pace

# What a slow source has not used of its pace; more would be a burst later.
_CREDIT = 0.05


@dataclass(eq=False, slots=True)
class Item:
    """Something on its way; `claim` delays it until `ready`."""

    event: Any
    ready: float = 0.0
    claim: ActiveFault | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """So many seconds, or until the claim is over."""

    seconds: float
    claim: ActiveFault


class PacedQueue:
    """One direction of an exchange or a connection. `clock` in monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue: deque[Item] = deque()
        self._paces: list[tuple[Pace, ActiveFault]] = []
        self._free: float | None = None
        self._due: float | None = None
        self.size = 0
        """Bytes that wait."""

    @property
    def empty(self) -> bool:
        return not self._queue

    def slow(self, pace: Pace, claim: ActiveFault) -> None:
        """From now on nothing is quicker than this, until the claim is over."""
        self._paces.append((pace, claim))

    def put(self, event: Any, claim: ActiveFault | None = None, seconds: float = 0.0) -> None:
        """Something comes; a claim holds it, and all behind it, for some seconds from now."""
        self.size += len(getattr(event, "data", b""))
        self._queue.append(Item(event, self._clock() + seconds, claim))

    def next(self) -> Any | Wait | None:
        """The next event that may go on, or how long to wait for it; None: nothing is here."""
        if not self._queue:
            return None
        item, now = self._queue[0], self._clock()
        if item.claim is not None and not item.claim.over:
            if item.ready > now:
                return Wait(item.ready - now, item.claim)
            item.claim.release()
        self._paces = [(pace, claim) for pace, claim in self._paces if not claim.over]
        size = len(getattr(item.event, "data", b""))
        if self._paces and size:
            size = min(size, *(pace.size for pace, _ in self._paces))
            if self._due is None:
                cost = max(size / pace.rate for pace, _ in self._paces)
                self._due = max(self._free or now, now - _CREDIT) + cost
            if self._due > now:
                return Wait(self._due - now, self._paces[0][1])
            self._free, self._due = self._due, None
            for _, claim in self._paces:
                claim.performed()
        return self._piece(item, size)

    def clear(self) -> None:
        """Nobody waits for any of this any more."""
        for item in self._queue:
            if item.claim is not None:
                item.claim.release()
        self._queue.clear()
        self.size = 0

    def _piece(self, item: Item, size: int) -> Any:
        self.size -= size
        if size == len(getattr(item.event, "data", b"")):
            self._queue.popleft()
            return item.event
        part = copy(item.event)
        part.data, item.event.data = part.data[:size], part.data[size:]
        return part


@dataclass
class WaitHook(StartHook):
    """A hook that ends when its wait does. Layers make it with `wait_aside`."""

    wait: Wait


def wait_aside(layer: Layer, wait: Wait) -> WaitHook:
    """Return a wait for `layer` to yield: the layer goes on, and gets HookCompleted at its end.

    mitmproxy sets `blocking` to the layer that yields a command and pauses that layer, unless the
    command names a layer already.
    """
    hook = WaitHook(wait)
    hook.blocking = layer  # type: ignore[assignment]
    return hook


async def waiting(wait: Wait) -> None:
    """The hook's handler."""
    await wait.claim.wait(wait.seconds)
