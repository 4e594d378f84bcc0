"""The part of a request's stream that holds back its events: rate limits, delays, and cuts."""

from mitmproxy import flow as mflow
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import DropStream, HttpStream, SendHttp

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.exchange_effects import ExchangeEffects
from counterfault.addons.faults.pacing import PacedQueue, Wait, wait_aside
from counterfault.addons.mitm.private import (
    ErrorCode,
    HttpErrorHook,
    HttpEvent,
    ResponseProtocolError,
)

type Generator[T] = layer.CommandGenerator[T]

# Bytes of a response that may be held before its upstream is no longer read.
HIGH_WATER = 256 * 1024
# Seconds between the last byte of a response that is cut and its RST_STREAM: HTTP/2 clients
# discard what they have not looked at when that comes.
_BEFORE_RESET = 0.02


class Cutoff(HttpEvent):
    """The place in a queue of response events where the response is cut off."""


class PacedStream(HttpStream):
    """A stream whose events may pass through a queue for each direction.

    A queue hands out an event, or how long to wait for the next one. The wait is a hook that does
    not pause the stream, so the other direction goes on meanwhile.
    """

    _effects: ExchangeEffects | None = None

    @property
    def held_request_bytes(self) -> int:
        """Bytes of the request that a fault holds."""
        return self._effects.up.size if self._effects and self._effects.up else 0

    @property
    def held_response_bytes(self) -> int:
        """Bytes of the response that a fault holds."""
        return self._effects.down.size if self._effects and self._effects.down else 0

    def handle_unfaulted(self, event: events.Event) -> Generator[None]:
        """Handle an event as if there were no faults."""
        raise NotImplementedError

    def set_upstream_reading(self, on: bool) -> Generator[None]:
        """Let a multiplexed upstream send more of this response, or no more."""
        raise NotImplementedError

    def wait_is_over(self, effects: ExchangeEffects, hook: commands.StartHook) -> Generator[None]:
        """Go on with the queue whose wait has ended; ignore hooks of others."""
        queue = effects.waits.pop(hook, None)
        if queue is not None:
            yield from self._drain(effects, queue)

    def enqueue(
        self, effects: ExchangeEffects, queue: PacedQueue | None, event: HttpEvent
    ) -> Generator[None]:
        """Pass an event on, through a queue if there is one."""
        if queue is None:
            yield from self._pass(event)
            return
        queue.put(event)
        yield from self._start(effects, queue)
        if self.held_response_bytes > HIGH_WATER:
            yield from self.set_upstream_reading(False)

    def enqueue_cutoff(self, effects: ExchangeEffects, fault: ActiveFault) -> Generator[None]:
        """Cut the response off behind all that is queued of it."""
        queue = effects.down = effects.down or PacedQueue(effects.clock)
        pause = _BEFORE_RESET if self.flow.request.is_http2 else 0.0
        queue.put(Cutoff(self.stream_id), fault, pause)
        yield from self._start(effects, queue)

    def _start(self, effects: ExchangeEffects, queue: PacedQueue) -> Generator[None]:
        if queue not in effects.waits.values():
            yield from self._drain(effects, queue)

    def _drain(self, effects: ExchangeEffects, queue: PacedQueue) -> Generator[None]:
        """Pass on all that may go now, then wait for the next event."""
        while (following := queue.next()) is not None:
            if isinstance(following, Wait):
                hook = wait_aside(self, following)
                effects.waits[hook] = queue
                yield hook
                return
            yield from self._pass(following)
            if self.held_response_bytes <= HIGH_WATER:
                yield from self.set_upstream_reading(True)

    def _pass(self, event: HttpEvent) -> Generator[None]:
        if isinstance(event, Cutoff):
            yield from self._cut_off()
        else:
            yield from self.handle_unfaulted(event)

    def _cut_off(self) -> Generator[None]:
        self.flow.error = mflow.Error("cut off by a fault")
        yield HttpErrorHook(self.flow)
        cut = ResponseProtocolError(self.stream_id, "cut off", ErrorCode.KILL)
        yield SendHttp(cut, self.context.client)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored
        yield DropStream(self.stream_id)
