"""HTTP/2 without TLS on plain sockets, down to trailers and interim answers."""

import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection

type Field = tuple[bytes, bytes]
type Fields = list[Field]


@dataclass(slots=True)
class Message:
    """A request or an answer."""

    headers: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list[Fields] = field(default_factory=list)
    ended: bool = False
    reset: bool = False


class Peer:
    """One end of a connection."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        config = H2Configuration(client_side=client, header_encoding=None)
        self.sock = sock
        self.h2 = H2Connection(config)
        self.messages: defaultdict[int, Message] = defaultdict(Message)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def send(
        self, stream: int, headers: Fields, body: bytes = b"", trailers: Sequence[Field] = ()
    ) -> None:
        """A whole message."""
        self.h2.send_headers(stream, headers, end_stream=not body and not trailers)
        if body:
            self.h2.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(stream, list(trailers), end_stream=True)
        self.flush()

    def read(self) -> Iterable[int]:
        """Wait for data; the streams on which a message has ended. Raises EOFError at the end."""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        ended = []
        for event in self.h2.receive_data(data):
            match event:
                case events.RequestReceived() | events.ResponseReceived():
                    self.messages[event.stream_id].headers = event.headers
                case events.InformationalResponseReceived():
                    self.messages[event.stream_id].interim.append(event.headers)
                case events.DataReceived():
                    self.messages[event.stream_id].body += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case events.TrailersReceived():
                    self.messages[event.stream_id].trailers = event.headers
                case events.StreamEnded():
                    self.messages[event.stream_id].ended = True
                    ended.append(event.stream_id)
                case events.StreamReset():
                    self.messages[event.stream_id].reset = True
        self.flush()
        return ended


def answering(answer: Callable[[Peer, int, Message], None]) -> Callable[[socket.socket], None]:
    """A script for a server that answers each whole request."""

    def script(sock: socket.socket) -> None:
        peer = Peer(sock, client=False)
        try:
            while True:
                for stream in peer.read():
                    answer(peer, stream, peer.messages[stream])
        except EOFError:
            return

    return script


def request(
    sock: socket.socket, headers: Fields, body: bytes = b"", trailers: Sequence[Field] = ()
) -> Message:
    """Make one request on a fresh connection; its answer."""
    peer = Peer(sock, client=True)
    stream = peer.h2.get_next_available_stream_id()
    peer.send(stream, headers, body, trailers)
    message = peer.messages[stream]
    while not message.ended and not message.reset:
        peer.read()
    return message
