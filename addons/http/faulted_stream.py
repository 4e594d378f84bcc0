"""A request and its answer while faults change what they say or how fast they come.

    upstream ──▶ patches ──▶ flips and cuts ──▶ valve ──▶ client
    client ──▶ copies ──▶ valve ──▶ upstream

A stream comes in here once its exchange has a shape, and pays for it only then.
"""

from mitmproxy import flow as mflow
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpStream,
    SendHttp,
)

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.body_edits import Cut, patched
from counterfault.addons.faults.exchange_effects import KEEP, ExchangeEffects
from counterfault.addons.faults.pacing import PacedQueue, Wait, wait_aside
from counterfault.addons.mitm.private import (
    ErrorCode,
    HttpErrorHook,
    HttpEvent,
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

# Bytes of an answer that may wait in its valve before the upstream has to.
HIGH_WATER = 256 * 1024
# Seconds between the last byte of an answer and its RST_STREAM.
_LINGER = 0.02

type Generator[T] = layer.CommandGenerator[T]
type AnswerPart = ResponseData | ResponseTrailers | ResponseEndOfMessage


class Cutoff(HttpEvent):
    """Here the answer is cut off."""


class OwnConnection(GetHttpConnection):
    """A connection that others do not wait for: HTTP/2, or one that nobody else is given."""


class FaultedStream(HttpStream):
    """What a stream does with its exchange's shape."""

    _shape: ExchangeEffects | None = None
    _is_cut = False

    def shape(self, shape: ExchangeEffects) -> None:
        """From here on, events pass through the shape."""
        self._shape = shape
        self._waits: dict[commands.Command, PacedQueue] = {}
        self._whole = bytearray()
        self._handle_event = self._shaped

    @property
    def shaped_up(self) -> int:
        """Bytes of the request that a pace holds."""
        return self._shape.up.size if self._shape and self._shape.up else 0

    @property
    def shaped_down(self) -> int:
        return self._shape.down.size if self._shape and self._shape.down else 0

    def unshaped(self, event: events.Event) -> Generator[None]:
        """An event as it would have been handled."""
        raise NotImplementedError

    def connect_again(self) -> Generator[Connection | None]:
        """A connection for a copy of the request."""
        raise NotImplementedError

    def sink(self, server: Connection) -> int:
        """The number of a stream whose answer nobody reads."""
        raise NotImplementedError

    def read_upstream(self, on: bool) -> Generator[None]:
        """Let an upstream that serves others too send more of this answer, or no more."""
        raise NotImplementedError

    def _shaped(self, event: events.Event) -> Generator[None]:
        shape = self._shape
        if shape is None:
            yield from self.unshaped(event)
            return
        match event:
            case events.HookCompleted():
                valve = self._waits.pop(event.command, None)
                if valve is not None:
                    yield from self._flow(valve)
            case RequestData() | RequestTrailers() | RequestEndOfMessage():
                yield from self._ask(shape, event)
            case ResponseData() | ResponseTrailers() | ResponseEndOfMessage():
                if not self._is_cut:
                    yield from self._answer(shape, event)
            case ResponseProtocolError() if self._is_cut:
                pass
            case ResponseProtocolError() if shape.down is not None and not shape.down.empty:
                yield from self._through(shape.down, event)
            case RequestProtocolError():
                shape.clear()
                yield from self.unshaped(event)
            case _:
                yield from self.unshaped(event)

    # --- the request

    def _ask(
        self, shape: ExchangeEffects, event: RequestData | RequestTrailers | RequestEndOfMessage
    ) -> Generator[None]:
        if isinstance(event, RequestData):
            shape.keep_request_data(event.data)
        elif isinstance(event, RequestEndOfMessage) and shape.copies:
            yield from self._send_copies(shape)
        yield from self._through(shape.up, event)

    def _send_copies(self, shape: ExchangeEffects) -> Generator[None]:
        """Before the request's own end is sent: once it is answered, the client may leave."""
        body = bytes(shape.request_body)
        for count, claim in shape.copies:
            for _ in range(0 if claim.over else count):
                if (yield from self._send_copy(body)):
                    claim.performed()
        shape.drop_copies()

    def _send_copy(self, body: bytes) -> Generator[bool]:
        server = yield from self.connect_again()
        if server is None:
            return False
        request, stream_id = self.flow.request.copy(), self.sink(server)
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

    # --- the answer

    def _answer(self, shape: ExchangeEffects, event: AnswerPart) -> Generator[None]:
        if not shape.patches:
            yield from self._change(shape, event)
        elif isinstance(event, ResponseData):
            self._whole += event.data
            if len(self._whole) > KEEP or all(claim.over for _, claim in shape.patches):
                yield from self._unkept(shape)
        elif isinstance(event, ResponseEndOfMessage):
            yield from self._patch(shape)
            yield from self._change(shape, event)
        elif self.flow.response is not None:
            self.flow.response.trailers = event.trailers

    def _patch(self, shape: ExchangeEffects) -> Generator[None]:
        """The body is whole: change what is to be changed, and send it."""
        body = bytes(self._whole)
        for patch, claim in shape.patches:
            changed = None if claim.over else patched(body, patch)
            if changed is not None:
                claim.performed()
                body = changed
        headers = self.flow.response.headers if self.flow.response else {}
        if "content-length" in headers:
            headers["content-length"] = str(len(body))
        self._whole[:] = body
        yield from self._unkept(shape)

    def _unkept(self, shape: ExchangeEffects) -> Generator[None]:
        """Send what was kept, and from now on all as it comes."""
        data = bytes(self._whole)
        self._whole.clear()
        for _, claim in shape.patches:
            claim.release()
        shape.patches.clear()
        yield from self.start_response_stream()
        if data:
            yield from self._change(shape, ResponseData(self.stream_id, data))

    def _change(self, shape: ExchangeEffects, event: AnswerPart) -> Generator[None]:
        data = event.data if isinstance(event, ResponseData) else b""
        for change, claim in shape.body_edits:
            data = change.flush() + data if claim.over else change.feed(data)
        if data:
            yield from self._through(shape.down, ResponseData(self.stream_id, data))
        cut = self._cuts(shape, isinstance(event, ResponseEndOfMessage))
        if cut is not None:
            self._is_cut = True
            yield from self.cancel_upstream()
            shape.down = shape.down or PacedQueue(shape.clock)
            # HTTP/2 clients throw away what they have not looked at when RST_STREAM comes.
            pause = _LINGER if self.flow.request.is_http2 else 0.0
            shape.down.put(Cutoff(self.stream_id), cut, pause)
            yield from self._set_off(shape.down)
        elif not isinstance(event, ResponseData):
            yield from self._through(shape.down, event)

    def _cuts(self, shape: ExchangeEffects, at_end: bool) -> ActiveFault | None:
        for change, claim in shape.body_edits:
            if isinstance(change, Cut) and not claim.over:
                if at_end:
                    change.end()
                if change.done:
                    claim.performed()
                    return claim
        return None

    def cancel_upstream(self) -> Generator[None]:
        yield SendHttp(
            RequestProtocolError(self.stream_id, "answered by a fault", ErrorCode.CANCEL),
            self.context.server,
        )

    # --- both

    def _through(self, valve: PacedQueue | None, event: HttpEvent) -> Generator[None]:
        if valve is None:
            yield from self._pass(event)
            return
        valve.put(event)
        yield from self._set_off(valve)
        if self.shaped_down > HIGH_WATER:
            yield from self.read_upstream(False)

    def _set_off(self, valve: PacedQueue) -> Generator[None]:
        if valve not in self._waits.values():
            yield from self._flow(valve)

    def _flow(self, valve: PacedQueue) -> Generator[None]:
        while (following := valve.next()) is not None:
            if isinstance(following, Wait):
                hook = wait_aside(self, following)  # the other direction goes on
                self._waits[hook] = valve
                yield hook
                return
            yield from self._pass(following)
            if self.shaped_down <= HIGH_WATER:
                yield from self.read_upstream(True)

    def _pass(self, event: HttpEvent) -> Generator[None]:
        if isinstance(event, Cutoff):
            yield from self._cut_off()
        else:
            yield from self.unshaped(event)

    def _cut_off(self) -> Generator[None]:
        self.flow.error = mflow.Error("cut off by a fault")
        yield HttpErrorHook(self.flow)
        cut = ResponseProtocolError(self.stream_id, "cut off", ErrorCode.KILL)
        yield SendHttp(cut, self.context.client)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored
        yield DropStream(self.stream_id)
