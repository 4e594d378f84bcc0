"""The shop's users, an open-loop load.

`python -m counterfault.proxy.demo.traffic --target URL --rate R` sends R requests a second, each at
a time that does not depend on responses, and measures latency from that time. So a slow shop
neither gets fewer requests nor hides its delays (coordinated omission).
"""

import argparse
import asyncio
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any

from counterfault.proxy.demo.http_client import FAILED, HttpClient
from counterfault.proxy.demo.services import PRODUCTS
from counterfault.proxy.values.buckets import LATENCY_BUCKETS, latency_bucket

USERS = 4000
# The exponent of the users' popularity; above 0.8 a few users would dominate their cohort.
ZIPF = 0.7
JOURNEYS = {  # the pages that a user visits, and how many users of ten do
    ("home", "product", "checkout"): 6,
    ("home", "product", "product"): 2,
    ("home",): 2,
}
# The mean time between two pages, and how long a user waits for one, in seconds.
THINK = 1.0
TIMEOUT = 10.0
# The most requests under way at once; a request beyond that is not sent, and counted as lost.
MOST = 500


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One request of one user, `at` seconds after the load began."""

    at: float
    user: str
    page: str
    product: int

    @property
    def path(self) -> str:
        """The path of the URL."""
        match self.page:
            case "product":
                return f"/product/{self.product}"
            case "checkout":
                return "/checkout"
        return "/"


@dataclass(slots=True)
class Seen:
    """What the users have experienced; `cells` counts durations by latency bucket."""

    sent: int = 0
    lost: int = 0
    failed: int = 0
    cells: Counter[int] = field(default_factory=Counter)

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile in seconds, rounded up to a bucket's bound.

        None before the first response.
        """
        most = len(LATENCY_BUCKETS) - 1
        reached = 0
        for cell in sorted(self.cells):
            reached += self.cells[cell]
            if reached >= q * self.cells.total():
                return LATENCY_BUCKETS[min(cell, most)]
        return None

    def summary(self) -> dict[str, Any]:
        """Return all numbers as JSON data; durations in seconds."""
        counts = {"sent": self.sent, "lost": self.lost, "failed": self.failed}
        return {**counts, "p50": self.quantile(0.5), "p99": self.quantile(0.99)}


def schedule(rate: float, rng: random.Random) -> Iterator[Step]:
    """Yield steps without end, ordered by time, on average `rate` a second."""
    journeys, shares = list(JOURNEYS), list(JOURNEYS.values())
    length = sum(len(j) * n for j, n in JOURNEYS.items()) / sum(shares)
    popularity = list(accumulate(rank**-ZIPF for rank in range(1, USERS + 1)))
    due: list[Step] = []
    arrival = 0.0
    while True:
        arrival += rng.expovariate(rate / length)
        while due and due[0].at <= arrival:
            yield heappop(due)
        user = f"user-{rng.choices(range(1, USERS + 1), cum_weights=popularity)[0]}"
        at = arrival
        for page in rng.choices(journeys, shares)[0]:
            heappush(due, Step(at, user, page, rng.randint(1, PRODUCTS)))
            at += rng.expovariate(1 / THINK)


class Traffic:
    """Sends each step when it is due, even if earlier requests have no response yet."""

    def __init__(self, target: str, client: HttpClient, most: int = MOST) -> None:
        self.seen = Seen()
        self._target, self._client, self._most = target.rstrip("/"), client, most
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, steps: Iterator[Step], seconds: float) -> None:
        """Send steps for `seconds`, then wait for the last response.

        Cancelling ends both at once.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        for step in steps:
            if step.at > seconds:
                break
            await asyncio.sleep(began + step.at - clock())
            self._start(step, began + step.at)
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _start(self, step: Step, due: float) -> None:
        if len(self._under_way) >= self._most:
            self.seen.lost += 1
            return
        self.seen.sent += 1
        task = asyncio.create_task(self._send(step, due))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, step: Step, due: float) -> None:
        url = self._target + step.path
        body = {"product": step.product} if step.page == "checkout" else None
        try:
            answer = await self._client.ask(url, {"x-user-id": step.user}, body, TIMEOUT)
            self.seen.failed += not answer.good
        except FAILED:
            self.seen.failed += 1
        self.seen.cells[latency_bucket(asyncio.get_running_loop().time() - due)] += 1


async def drive(target: str, rate: float, seconds: float, seed: int) -> Seen:
    """Send `rate` requests a second for `seconds`; return what the users experienced.

    SIGTERM and SIGINT end it early.
    """
    load = Traffic(target, HttpClient())
    work = asyncio.ensure_future(load.run(schedule(rate, random.Random(seed)), seconds))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    await asyncio.wait([work])
    return load.seen


def main(argv: Sequence[str] | None = None) -> None:
    """Run the load that the arguments describe, and print its summary as JSON."""
    parser = argparse.ArgumentParser(prog="python -m counterfault.proxy.demo.traffic")
    parser.add_argument("--target", metavar="URL", required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="default: for ever")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    seen = asyncio.run(drive(args.target, args.rate, args.seconds, args.seed))
    json.dump(seen.summary(), sys.stdout)
    print()


if __name__ == "__main__":
    main()
