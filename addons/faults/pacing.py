"""A queue that holds back what flows in one direction: by a rate limit or by delays.

It knows no protocol. Events go in and come out in their order, those with `data` in pieces; or the
queue says how long to wait for the next one.

    put ──▶ [event, event, …] ──▶ next ──▶ the next event
                                   └─────▶ or a Wait: call `next` again when it is over
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

# Seconds of unused rate that a slow source may catch up on; more would be a burst later.
_CREDIT = 0.05


@dataclass(eq=False, slots=True)
class Item:
    """An event in the queue; `fault` delays it until `ready`, in seconds of the clock."""

    event: Any
    ready: float = 0.0
    fault: ActiveFault | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait of some seconds, which ends earlier if the fault is over."""

    seconds: float
    fault: ActiveFault


class PacedQueue:
    """The events on their way in one direction of an exchange or a connection."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._queue: deque[Item] = deque()
        self._paces: list[tuple[Pace, ActiveFault]] = []
        self._free: float | None = None
        self._due: float | None = None
        self.size = 0
        """Bytes in the queue."""

    @property
    def empty(self) -> bool:
        """Whether there is no event in the queue."""
        return not self._queue

    def limit_rate(self, pace: Pace, fault: ActiveFault) -> None:
        """Let data pass at this pace at most, until the fault is over."""
        self._paces.append((pace, fault))

    def put(self, event: Any, fault: ActiveFault | None = None, seconds: float = 0.0) -> None:
        """Append an event; `fault` holds it, and all behind it, for some seconds from now."""
        self.size += len(getattr(event, "data", b""))
        self._queue.append(Item(event, self._clock() + seconds, fault))

    def next(self) -> Any | Wait | None:
        """Return the next event that may go on, how long to wait for it, or None if empty."""
        if not self._queue:
            return None
        item, now = self._queue[0], self._clock()
        if item.fault is not None and not item.fault.over:
            if item.ready > now:
                return Wait(item.ready - now, item.fault)
            item.fault.release()
        self._paces = [(pace, fault) for pace, fault in self._paces if not fault.over]
        size = len(getattr(item.event, "data", b""))
        if self._paces and size:
            size = min(size, *(pace.size for pace, _ in self._paces))
            if self._due is None:
                cost = max(size / pace.rate for pace, _ in self._paces)
                self._due = max(self._free or now, now - _CREDIT) + cost
            if self._due > now:
                return Wait(self._due - now, self._paces[0][1])
            self._free, self._due = self._due, None
            for _, fault in self._paces:
                fault.performed()
        return self._piece(item, size)

    def clear(self) -> None:
        """Drop all events and release the faults that hold them."""
        for item in self._queue:
            if item.fault is not None:
                item.fault.release()
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


async def handle_wait(wait: Wait) -> None:
    """Handle a WaitHook: mitmproxy's layers go on when this returns."""
    await wait.fault.wait(wait.seconds)
