"""An upstream whose answers take as long, and have the status, that each request asks for."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit


@contextmanager
def slow_upstream() -> Iterator[str]:
    """Yield its URL; `/?seconds=2&status=503` takes 2 s and answers with 503."""
    started, urls = threading.Event(), list[str]()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        stop = asyncio.Event()
        ends.append((asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield urls[0]
    finally:
        loop, stop = ends[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked = parse_qs(urlsplit(head.split(b" ")[1].decode()).query)
            await asyncio.sleep(float(asked.get("seconds", ["0"])[0]))
            status = asked.get("status", ["200"])[0]
            writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nok".encode())
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
