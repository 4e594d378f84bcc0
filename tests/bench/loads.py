"""The users: wrk, h2load, and a slow open loop; each answers with what it saw."""

import asyncio
import json
import re
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.setups import Running

_SCRIPT = Path(__file__).with_name("users.lua")
_WARM_UP = 1
# Requests a second of the open loops, and as many directly.
_SLOW, _BRISK = 100, 200
_REQUEST = (
    b"GET /orders HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\nx-user-id: user-%d\r\n\r\n"
)

type Seen = dict[str, float]
type Load = Callable[[Running, int, int], Seen]
"""Loads a proxy for some seconds; the second number is nginx's own port."""


class Failed(Exception):
    """An answer was not 2xx, or there was none."""


def keep_alive(proxy: Running, _: int, seconds: int) -> Seen:
    return _wrk(proxy.port, seconds)


def close(proxy: Running, _: int, seconds: int) -> Seen:
    return _wrk(proxy.port, seconds, "close")


def _wrk(port: int, seconds: int, *args: str) -> Seen:
    said = _run(
        *("wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(_SCRIPT)),
        *(f"http://127.0.0.1:{port}/orders", "--", *args),
    )
    seen: Seen = json.loads(said.strip().splitlines()[-1])
    errors = seen.pop("errors")
    if errors or not seen["requests"]:
        raise Failed(f"wrk: {errors} of {seen['requests']} requests failed:\n{said}")
    return seen


def http2(proxy: Running, _: int, seconds: int) -> Seen:
    said = _run(
        *("h2load", "-c8", "-m10", "-D", str(seconds)),
        *("-H", "x-user-id: user-7", f"https://127.0.0.1:{proxy.secure}/orders"),
    )
    total = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    spent = re.search(r"finished in ([\d.]+)(ms|s)", said)
    if total is None or codes is None or spent is None or "protocol: h2" not in said:
        raise Failed(f"h2load says what is not understood:\n{said}")
    if any(int(n) for n in (*total.groups()[1:], *codes.groups()[1:])) or not int(total[1]):
        raise Failed(f"h2load: requests failed:\n{said}")
    took = float(spent[1]) / (1000 if spent[2] == "ms" else 1)
    return {"requests": int(total[1]), "seconds": took}


def slow(proxy: Running, direct: int, seconds: int) -> Seen:
    """So many requests a second through the proxy, and between them as many directly."""
    return _at(_SLOW, proxy, direct, seconds)


def brisk(proxy: Running, direct: int, seconds: int) -> Seen:
    """The same, faster."""
    return _at(_BRISK, proxy, direct, seconds)


def _at(rate: int, proxy: Running, direct: int, seconds: int) -> Seen:
    """What those saw who are in no experiment."""
    lines = asyncio.run(_open_loop(rate, proxy.port, direct, seconds))
    through, beside = ([t for user, t in line if proxy.bystander(user)] for line in lines)
    seen: Seen = {"requests": len(through), "seconds": seconds}
    for name, rank in (("p50_ms", 50), ("p99_ms", 99)):
        ours, theirs = (_percentile(times, rank) * 1000 for times in (through, beside))
        seen |= {name: ours, f"direct_{name}": theirs, f"added_{name}": ours - theirs}
    return seen


LOADS: dict[str, tuple[str, Load]] = {
    "keep-alive": ("HTTP/1", keep_alive),
    "close": ("HTTP/1 without keep-alive", close),
    "http2": ("HTTP/2", http2),
    "slow": (f"{_SLOW} requests a second", slow),
    "brisk": (f"{_BRISK} requests a second", brisk),
}


OPEN = ("slow", "brisk")


class _Line:
    """Keep-alive connections to one port."""

    def __init__(self, port: int) -> None:
        self.times: list[tuple[int, float]] = []
        self._port = port
        self._idle: list[socket.socket] = []

    async def ask(self, user: int) -> None:
        """Send a request at once, on a connection that is free, and wait for its answer."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        sock = self._idle.pop() if self._idle else await self._connect(loop)
        await loop.sock_sendall(sock, _REQUEST % user)
        answer = b""
        while not _is_whole(answer):
            data = await loop.sock_recv(sock, 65536)
            if not data:
                raise Failed(f"a connection was closed after {answer!r}")
            answer += data
        self.times.append((user, time.perf_counter() - began))
        if not answer.startswith(b"HTTP/1.1 2"):
            raise Failed(f"not 2xx: {answer!r}")
        self._idle.append(sock)

    def close(self) -> None:
        for sock in self._idle:
            sock.close()

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, ("127.0.0.1", self._port))
        return sock


async def _open_loop(
    rate: int, port: int, direct: int, seconds: int
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Users and times of both, in seconds; requests are sent whether those before are answered."""
    loop = asyncio.get_running_loop()
    lines = (_Line(port), _Line(direct))
    skipped = 2 * rate * _WARM_UP
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(2 * rate * seconds + skipped):
            await asyncio.sleep(began + number / (2 * rate) - loop.time())
            group.create_task(lines[number % 2].ask(number))
    for line in lines:
        line.close()
    through, beside = (line.times[skipped // 2 :] for line in lines)
    return through, beside


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end and length and len(body) >= int(length[1]))


def _percentile(times: list[float], rank: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[rank - 1]


def warm_up(load: str, proxy: Running, direct: int) -> None:
    """So that caches are filled and connections' paths are known; open loops do it themselves."""
    if load not in OPEN:
        LOADS[load][1](proxy, direct, _WARM_UP)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
