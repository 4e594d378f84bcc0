"""A request's stream while faults act on it: copies of the request, edits of the response, paces.

    client ──▶ copies ──▶ queue ──▶ upstream
    upstream ──▶ patches of the whole body ──▶ byte flips and cuts ──▶ queue ──▶ client

Theory of operation. Most streams have no fault: their events go straight to `handle_unfaulted`,
which is mitmproxy's state machine as the subclass extends it. `apply_effects` is called once the
exchange has effects: at the request's head, or at the response's head. From then on every event
takes the way above first, and reaches `handle_unfaulted` when it comes out of a queue.

- Events of the request are kept for its copies (up to KEEP bytes) and queued.
- Copies are sent when the request's end comes, and before that end is sent on: once the request is
  answered, the client may leave and the stream with it. Each copy has a stream of its own, which
  discards the response.
- Events of the response are collected while there is a patch, since a patch needs the whole body;
  above KEEP bytes the patch has failed, and the body passes as it is. Then bytes are flipped or
  cut, and queued. A cut cancels the upstream's stream and puts a Cutoff into the queue.
- An error of the client ends everything; an error of the upstream waits behind queued data.

An effect ends when its fault is over, at any time: what it kept then passes unchanged.
"""

from mitmproxy.connection import Connection
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http import GetHttpConnection, SendHttp

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.body_edits import Cut, patched
from counterfault.addons.faults.exchange_effects import KEEP, ExchangeEffects
from counterfault.addons.http.paced_stream import Generator, PacedStream
from counterfault.addons.mitm.private import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
    ResponseTrailers,
)

type RequestPart = RequestData | RequestTrailers | RequestEndOfMessage
type ResponsePart = ResponseData | ResponseTrailers | ResponseEndOfMessage


class GetUnsharedConnection(GetHttpConnection):
    """A connection for a copy of a request: HTTP/2, or HTTP/1 that no other request is given."""


class FaultedStream(PacedStream):
    """A stream that applies its exchange's effects."""

    _is_cut = False

    def apply_effects(self, effects: ExchangeEffects) -> None:
        """Apply these effects to all events from here on."""
        self._effects = effects

    def connect_for_copy(self) -> Generator[Connection | None]:
        """Return a connection for a copy of the request, or None if there is none."""
        raise NotImplementedError

    def add_discarding_stream(self, server: Connection) -> int:
        """Return the id of a new stream that discards its response."""
        raise NotImplementedError

    def cancel_upstream(self) -> Generator[None]:
        """Cancel the request at its upstream: a fault has answered it."""
        yield SendHttp(
            RequestProtocolError(self.stream_id, "answered by a fault", ErrorCode.CANCEL),
            self.context.server,
        )

    def handle_faulted(self, effects: ExchangeEffects, event: events.Event) -> Generator[None]:
        """Handle an event of a stream that has effects."""
        match event:
            case events.HookCompleted():
                yield from self.wait_is_over(effects, event.command)
            case RequestData() | RequestTrailers() | RequestEndOfMessage():
                yield from self._handle_request(effects, event)
            case ResponseData() | ResponseTrailers() | ResponseEndOfMessage():
                if not self._is_cut:
                    yield from self._handle_response(effects, event)
            case ResponseProtocolError() if self._is_cut:
                pass
            case ResponseProtocolError() if effects.down is not None and not effects.down.empty:
                yield from self.enqueue(effects, effects.down, event)
            case RequestProtocolError():
                effects.clear()
                yield from self.handle_unfaulted(event)
            case _:
                yield from self.handle_unfaulted(event)

    # --- the request

    def _handle_request(self, effects: ExchangeEffects, event: RequestPart) -> Generator[None]:
        if isinstance(event, RequestData):
            effects.keep_request_data(event.data)
        elif isinstance(event, RequestEndOfMessage) and effects.copies:
            yield from self._send_copies(effects)
        yield from self.enqueue(effects, effects.up, event)

    def _send_copies(self, effects: ExchangeEffects) -> Generator[None]:
        body = bytes(effects.request_body)
        for count, fault in effects.copies:
            for _ in range(0 if fault.over else count):
                if (yield from self._send_copy(body)):
                    fault.performed()
        effects.drop_copies()

    def _send_copy(self, body: bytes) -> Generator[bool]:
        server = yield from self.connect_for_copy()
        if server is None:
            return False
        request, stream_id = self.flow.request.copy(), self.add_discarding_stream(server)
        if "expect" in request.headers:
            del request.headers["expect"]
        trailers = request.trailers
        ended = not body and not trailers
        yield SendHttp(RequestHeaders(stream_id, request, end_stream=ended), server)
        if body:
            yield SendHttp(RequestData(stream_id, body), server)
        if trailers:
            yield SendHttp(RequestTrailers(stream_id, trailers), server)
        yield SendHttp(RequestEndOfMessage(stream_id), server)
        return True

    # --- the response

    def _handle_response(self, effects: ExchangeEffects, event: ResponsePart) -> Generator[None]:
        if not effects.patches:
            yield from self._edit(effects, event)
        elif isinstance(event, ResponseData):
            effects.response_body += event.data
            if len(effects.response_body) > KEEP or all(fault.over for _, fault in effects.patches):
                yield from self._send_body(effects)
        elif isinstance(event, ResponseEndOfMessage):
            self._patch(effects)
            yield from self._send_body(effects)
            yield from self._edit(effects, event)
        elif self.flow.response is not None:
            self.flow.response.trailers = event.trailers

    def _patch(self, effects: ExchangeEffects) -> None:
        """Patch the collected body, which is whole."""
        body = bytes(effects.response_body)
        for patch, fault in effects.patches:
            changed = None if fault.over else patched(body, patch)
            if changed is not None:
                fault.performed()
                body = changed
        headers = self.flow.response.headers if self.flow.response else {}
        if "content-length" in headers:
            headers["content-length"] = str(len(body))
        effects.response_body[:] = body

    def _send_body(self, effects: ExchangeEffects) -> Generator[None]:
        """Send the head and the collected body, and collect no more."""
        data = bytes(effects.response_body)
        effects.response_body.clear()
        for _, fault in effects.patches:
            fault.release()
        effects.patches.clear()
        yield from self.start_response_stream()
        if data:
            yield from self._edit(effects, ResponseData(self.stream_id, data))

    def _edit(self, effects: ExchangeEffects, event: ResponsePart) -> Generator[None]:
        """Flip or cut bytes of the body as it passes, and queue the result."""
        data = event.data if isinstance(event, ResponseData) else b""
        for edit, fault in effects.body_edits:
            data = edit.flush() + data if fault.over else edit.feed(data)
        if data:
            yield from self.enqueue(effects, effects.down, ResponseData(self.stream_id, data))
        cut = _completed_cut(effects, at_end=isinstance(event, ResponseEndOfMessage))
        if cut is not None:
            self._is_cut = True
            yield from self.cancel_upstream()
            yield from self.enqueue_cutoff(effects, cut)
        elif not isinstance(event, ResponseData):
            yield from self.enqueue(effects, effects.down, event)


def _completed_cut(effects: ExchangeEffects, *, at_end: bool) -> ActiveFault | None:
    """Return the fault of a cut that has let through all that it lets through, if any."""
    for edit, fault in effects.body_edits:
        if isinstance(edit, Cut) and not fault.over:
            if at_end:
                edit.end()
            if edit.done:
                fault.performed()
                return fault
    return None
