"""The demo's load keeps to its schedule, whatever the shop does."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, takewhile
from statistics import mean, pvariance

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from counterfault.proxy.demo.http_client import HttpClient
from counterfault.proxy.demo.traffic import MOST, USERS, ZIPF, Seen, Step, Traffic, schedule

SECONDS = 1000
RATE = 100.0
STEPS = list(takewhile(lambda s: s.at < SECONDS, schedule(RATE, random.Random(3))))
SLOW = 2.0


class Shop(RequestHandler):
    """Answers after `delay` seconds, and remembers who came when."""

    def initialize(self, delay: float, came: list[float], users: list[str]) -> None:
        self.delay, self.came, self.users = delay, came, users

    async def prepare(self) -> None:
        self.came.append(asyncio.get_running_loop().time())
        self.users.append(self.request.headers["x-user-id"])
        await asyncio.sleep(self.delay)

    def get(self, page: str) -> None:
        self.set_status(404 if page == "product/0" else 200)

    def post(self, page: str) -> None:
        self.finish(json.loads(self.request.body))


def steps(*times: float, page: str = "home", product: int = 1) -> Iterator[Step]:
    return iter([Step(at, f"user-{i}", page, product) for i, at in enumerate(times)])


async def _drive(
    load: Iterator[Step], delay: float, most: int
) -> tuple[Seen, list[float], list[str]]:
    came: list[float] = []
    users: list[str] = []
    shop = {"delay": delay, "came": came, "users": users}
    server = HTTPServer(Application([(r"/(.*)", Shop, shop)]))
    sock, port = bind_unused_port()
    server.add_socket(sock)
    client = HttpClient()
    driven = Traffic(f"http://127.0.0.1:{port}/", client, most)
    await driven.run(load, seconds=60)
    server.stop()
    await server.close_all_connections()
    client.close()
    return driven.seen, came, users


def drive(
    load: Iterator[Step], delay: float = 0.0, most: int = MOST
) -> tuple[Seen, list[float], list[str]]:
    """Send steps to a real server: what the load has seen, and when and who the server has."""
    return asyncio.run(_drive(load, delay, most))


def test_a_slow_answer_delays_no_arrival() -> None:
    seen, came, users = drive(steps(*(i / 100 for i in range(50))), delay=SLOW)
    assert max(came) - min(came) < SLOW  # so the last came before the first was answered
    assert sorted(users) == sorted(f"user-{i}" for i in range(50))
    assert (seen.sent, seen.lost, seen.failed) == (50, 0, 0)


def test_latency_counts_from_the_intended_moment() -> None:
    seen, _, _ = drive(steps(-1.0))
    assert 0.9 < (seen.quantile(0.5) or 0) < 5


def test_arrivals_past_the_bound_are_counted_as_lost() -> None:
    seen, came, _ = drive(steps(0, 0, 0, 0, 0), delay=SLOW, most=3)
    assert (seen.sent, seen.lost, len(came)) == (3, 2, 3)


def test_an_error_of_the_shop_is_counted_as_failed() -> None:
    seen, _, _ = drive(steps(0, 0, page="product", product=0))
    assert (seen.sent, seen.failed) == (2, 2)


def test_a_checkout_is_posted() -> None:
    seen, _, _ = drive(steps(0, page="checkout"))
    assert (seen.sent, seen.failed) == (1, 0)


def test_sigterm_ends_the_process_with_a_summary() -> None:
    sock, port = bind_unused_port()
    arguments = ["--target", f"http://127.0.0.1:{port}", "--rate", "200", "--seed", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "counterfault.proxy.demo.traffic", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        sock.setblocking(True)
        sock.settimeout(30)
        sock.accept()[0].close()  # it loads: its signal handlers are there
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        sock.close()
    summary = json.loads(out)
    assert process.returncode == 0
    assert summary["sent"] >= 1
    assert summary["lost"] == 0


def test_the_schedule_is_in_order_and_has_its_rate() -> None:
    assert all(a.at <= b.at for a, b in pairwise(STEPS))
    assert len(STEPS) / SECONDS == pytest.approx(RATE, rel=0.03)


def test_arrivals_are_a_poisson_process() -> None:
    per_second = Counter(int(step.at) for step in STEPS if step.page == "home")
    counts = [per_second[second] for second in range(SECONDS)]
    assert pvariance(counts) / mean(counts) == pytest.approx(1, abs=0.15)


def test_users_have_zipf_popularity() -> None:
    visits = Counter(step.user for step in STEPS if step.page == "home")
    head = sum(visits[f"user-{i}"] for i in range(1, 11))
    tail = sum(visits[f"user-{i}"] for i in range(1001, 1011))
    expected = sum(i**-ZIPF for i in range(1, 11)) / sum(i**-ZIPF for i in range(1001, 1011))
    assert head / tail == pytest.approx(expected, rel=0.35)
    assert {int(user.removeprefix("user-")) for user in visits} <= set(range(1, USERS + 1))


def test_users_take_several_journeys() -> None:
    pages = Counter(step.page for step in STEPS)
    assert pages["checkout"] / pages["home"] == pytest.approx(0.6, abs=0.02)
    assert pages["product"] / pages["home"] == pytest.approx(1.0, abs=0.05)


def test_the_same_seed_gives_the_same_users() -> None:
    again = schedule(RATE, random.Random(3))
    assert [next(again) for _ in range(100)] == STEPS[:100]
