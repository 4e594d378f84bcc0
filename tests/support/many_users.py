"""Many users with a request now and then, on a few connections, until told to stop."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException


@dataclass(slots=True)
class Visits:
    """What the users saw: when each of their requests began, and its status, None without one."""

    asked: list[tuple[float, int | None]] = field(default_factory=list)

    def count(self, status: int | None) -> int:
        return sum(found == status for _, found in self.asked)

    def since(self, moment: float) -> set[int | None]:
        """The statuses of requests that began after that, in seconds of the monotonic clock."""
        return {status for began, status in self.asked if began > moment}


def _shop(
    port: int, users: Sequence[str], path: str, rate: float, stop: threading.Event, visits: Visits
) -> None:
    draw = random.Random(port + threading.get_ident())
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    while not stop.is_set():
        began, status = time.monotonic(), None
        try:
            connection.request("GET", path, headers={"x-user-id": draw.choice(users)})
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (HTTPException, OSError):
            connection.close()
        visits.asked.append((began, status))
        stop.wait(draw.expovariate(rate))
    connection.close()


@contextmanager
def shop_visits(
    port: int, users: Sequence[str], path: str = "/", rate: float = 200.0, threads: int = 4
) -> Iterator[Visits]:
    """So many requests a second by users drawn at random, while the block runs."""
    stop, visits = threading.Event(), Visits()
    args = (port, users, path, rate / threads, stop, visits)
    crew = [threading.Thread(target=_shop, args=args, daemon=True) for _ in range(threads)]
    for one in crew:
        one.start()
    try:
        yield visits
    finally:
        stop.set()
        for one in crew:
            one.join(60)


def names(count: int) -> list[str]:
    """User ids."""
    return [f"user-{i}" for i in range(count)]
