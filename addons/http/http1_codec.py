"""What both of our HTTP/1 codecs add to mitmproxy's: trailers of chunked bodies are passed on."""

from h11 import Data, EndOfMessage
from mitmproxy import http
from mitmproxy.proxy import commands, events, layer

from counterfault.addons.mitm.private import (
    ChunkedReader,
    Http1Connection,
    HttpEvent,
    ReceiveBuffer,
    ReceiveHttp,
    RequestEndOfMessage,
    RequestTrailers,
    ResponseEndOfMessage,
    ResponseTrailers,
)

type Generator[T] = layer.CommandGenerator[T]

_LAST_CHUNK = b"0\r\n\r\n"


def nothing() -> Generator[None]:
    """Return no commands.

    A method that returns a generator, rather than yields from one, saves a step per command.
    """
    yield from ()


class Http1(Http1Connection):
    """A connection that speaks HTTP/1, to a client or to an upstream."""

    ReceiveTrailers: type[RequestTrailers | ResponseTrailers]
    """The event for trailers that were received; a subclass says which."""
    _trailers_to_send: http.Headers | None = None

    def _handle_event(self, event: events.Event) -> Generator[None]:
        # As mitmproxy's, but it returns the inner generator.
        if isinstance(event, HttpEvent):
            return self.send(event)
        if isinstance(event, events.DataReceived) and self.state != self.passthrough:
            self.buf += event.data
        passed: Generator[None] = self.state(event)
        return passed

    def read_body(self, event: events.Event) -> Generator[None]:
        """Read a body, and the trailers of a chunked one."""
        if type(self.body_reader) is ChunkedReader:
            self.body_reader = _ChunksWithTrailers()
        if isinstance(self.body_reader, _ChunksWithTrailers):
            return self._read_chunks(event)
        return super().read_body(event)

    def _read_chunks(self, event: events.Event) -> Generator[None]:
        for command in super().read_body(event):
            # Once a message ends, this goes on with a pipelined one, which has another reader.
            reader = self.body_reader
            if (
                isinstance(reader, _ChunksWithTrailers)
                and reader.trailers is not None
                and isinstance(command, ReceiveHttp)
                and isinstance(command.event, self.ReceiveEndOfMessage)
            ):
                trailers, reader.trailers = reader.trailers, None
                yield ReceiveHttp(self.ReceiveTrailers(command.event.stream_id, trailers))
            yield command

    def send(self, event: HttpEvent) -> Generator[None]:
        """Send a part of a message; its trailers wait for its end."""
        if isinstance(event, (RequestTrailers, ResponseTrailers)):
            self._trailers_to_send = event.trailers
            return nothing()
        if self._trailers_to_send is None:
            return super().send(event)
        return self._send_with_trailers(event)

    def _send_with_trailers(self, event: HttpEvent) -> Generator[None]:
        trailers = None
        if isinstance(event, (RequestEndOfMessage, ResponseEndOfMessage)):
            trailers, self._trailers_to_send = self._trailers_to_send, None
        for command in super().send(event):
            if trailers and isinstance(command, commands.SendData) and command.data == _LAST_CHUNK:
                command.data = b"0\r\n%s\r\n" % bytes(trailers)
            yield command


class _ChunksWithTrailers(ChunkedReader):
    """h11's reader of chunks; it sets trailers aside, which mitmproxy does not expect from it."""

    trailers: http.Headers | None = None

    def __call__(self, buf: ReceiveBuffer) -> Data | EndOfMessage | None:
        event = super().__call__(buf)
        if isinstance(event, EndOfMessage) and event.headers:
            self.trailers = http.Headers(event.headers.raw_items())
            return EndOfMessage()
        return event
