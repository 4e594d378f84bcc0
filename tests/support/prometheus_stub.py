"""An HTTP server that answers queries as Prometheus does, or with any bytes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


def level(value: str) -> bytes:
    result = [{"metric": {}, "value": [1.5, value]}]
    data = {"resultType": "vector", "result": result}
    return json.dumps({"status": "success", "data": data}).encode()


class Server(ThreadingHTTPServer):
    """Answers with `raw`, or with a level, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.raw = b""
        """Sent as it is; empty: a good answer."""
        self.hangs = False
        self.released = threading.Event()
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args: Any) -> None:
        """Ignore clients that go away in the middle."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.path, parse_qs(said), self.headers["Authorization"]))
        if self.server.hangs:
            self.server.released.wait(10)
            return
        body = level("50" if "experiment" in said else "100")
        whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        self.wfile.write(self.server.raw or whole)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


def sized(body: bytes, head: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n" % (head, len(body)) + body


@contextmanager
def running() -> Iterator[Server]:
    """A server that answers until the block is left."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)
