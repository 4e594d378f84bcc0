"""HTTP/1 on plain sockets: what really goes over the wire, without a library's opinion of it."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import free_port, until

TIMEOUT = 10.0

type Script = Callable[[socket.socket], None]


class Scripted:
    """A real server that does on each connection what `script` says by then, and closes it."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self.opened = self.closed = 0
        self._listening = socket.create_server(("127.0.0.1", port), backlog=256)
        self._open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def play(self, script: Script) -> None:
        """Do this from now on. Connections that a proxy has kept, for whom it may, are over."""
        self.script = script
        for sock in tuple(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        until(lambda: not self._open)

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join(TIMEOUT)
        for sock in tuple(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.opened += 1
            sock.settimeout(TIMEOUT)
            self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError, EOFError):
            self.script(sock)
        self._open.discard(sock)
        self.closed += 1


@contextmanager
def scripted(script: Script, port: int = 0) -> Iterator[Scripted]:
    server = Scripted(script, port)
    try:
        yield server
    finally:
        server.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def read_head(sock: socket.socket) -> bytes:
    """A head with its empty line, and not a byte more; what there is if the peer closes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # What is there is looked at before it is taken, or a body's first bytes would be lost.
        seen = sock.recv(65536, socket.MSG_PEEK)
        if not seen:
            return head
        end = (head[-3:] + seen).find(b"\r\n\r\n")
        head += sock.recv(len(seen) if end < 0 else end + 4 - len(head[-3:]))
    return head


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer closes."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def read_chunked(sock: socket.socket) -> bytes:
    """A chunked body with its framing and trailers."""
    data = b""
    while not re.search(rb"(^|\r\n)0\r\n([^\r\n]+\r\n)*\r\n$", data):
        more = sock.recv(1)
        if not more:
            break
        data += more
    return data


def read_chunks(sock: socket.socket) -> Iterator[bytes]:
    """The data of a chunked body without trailers."""
    while size := int(_read_line(sock), 16):
        yield read_exactly(sock, size)
        _read_line(sock)
    _read_line(sock)


def _read_line(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise EOFError
        line += byte
    return line.rstrip()


def fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields of a raw head, names as they were spelt."""
    pairs = [line.partition(b":") for line in head.split(b"\r\n")[1:-2]]
    return [(name, value.strip()) for name, _, value in pairs]


@dataclass(frozen=True, slots=True)
class Answer:
    """A head as it came, and its body without chunks' framing."""

    head: bytes
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in fields(self.head) if key.lower() == name), None)


def read_answer(sock: socket.socket) -> Answer:
    """The next answer on a connection, to anything but HEAD."""
    answer = Answer(read_head(sock))
    if answer.status in (204, 304) or answer.status < 200:
        return answer
    if answer.header(b"transfer-encoding") == b"chunked":
        return Answer(answer.head, b"".join(read_chunks(sock)))
    size = answer.header(b"content-length")
    body = read_all(sock) if size is None else read_exactly(sock, int(size))
    return Answer(answer.head, body)


def echo(sock: socket.socket) -> None:
    """Answer each request with its head as it came; its body is read first."""
    while head := read_head(sock):
        size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if size:
            read_exactly(sock, int(size[1]))
        elif re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            read_chunked(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(head), head))


@contextmanager
def httpbin() -> Iterator[str]:
    """The address of a real httpbin."""
    port = free_port()
    script = Path(__file__).with_name("httpbin_server.py")
    process = subprocess.Popen([sys.executable, str(script), str(port)])
    try:
        until(lambda: answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
