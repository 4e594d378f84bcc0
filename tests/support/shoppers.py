"""Many users with a request now and then, on a few connections, until told to stop."""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException


def _shop(port: int, users: Sequence[str], path: str, rate: float, stop: threading.Event) -> None:
    draw = random.Random(port + threading.get_ident())
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    while not stop.is_set():
        try:
            connection.request("GET", path, headers={"x-user-id": draw.choice(users)})
            connection.getresponse().read()
        except (HTTPException, OSError):
            connection.close()
        stop.wait(draw.expovariate(rate))
    connection.close()


@contextmanager
def shopping(
    port: int, users: Sequence[str], path: str = "/", rate: float = 200.0, threads: int = 4
) -> Iterator[None]:
    """So many requests a second by users drawn at random, while the block runs."""
    stop = threading.Event()
    args = (port, users, path, rate / threads, stop)
    crew = [threading.Thread(target=_shop, args=args, daemon=True) for _ in range(threads)]
    for one in crew:
        one.start()
    try:
        yield
    finally:
        stop.set()
        for one in crew:
            one.join(60)


def names(count: int) -> list[str]:
    """User ids."""
    return [f"user-{i}" for i in range(count)]
