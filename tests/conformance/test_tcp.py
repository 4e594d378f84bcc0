"""Faults on raw connections: real Redis and PostgreSQL, asked by their own clients."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
import redis

from counterfault.proxy.experiments.cohorts import Arcs, Cohort, salt_of
from tests.support.fresh_run import Runs
from tests.support.http1_wire import read_all
from tests.support.open_resources import leaves_nothing
from tests.support.programs import Sidecar, free_port, until
from tests.support.redis_postgres import postgres_server, query, redis_server, seconds_since
from tests.support.timing import ReleaseTimer

# 127.0.0.0/8 is all loopback: each of these addresses can be a client of its own.
ADDRESSES = [f"127.0.0.{i}" for i in range(2, 120)]


class World(Runs):
    """A sidecar in front of stores; `store` and `db` enroll addresses, `each` connections."""

    def begin(self, *faults: dict[str, Any], at: str = "store", **more: Any) -> None:
        super().begin(*({"at": at, **fault} for fault in faults), **more)

    def cohort(self, address: str) -> Cohort | None:
        """For shares of 30 %."""
        enrolment = Arcs("x", salt_of("x", self.run), 0.3, 0.3).enrolment_of(address.encode())
        return enrolment.cohort if enrolment else None

    def address(self, cohort: str) -> str:
        return next(a for a in ADDRESSES if self.cohort(a) == cohort)

    @contextmanager
    def raw(self, cohort: str) -> Iterator[socket.socket]:
        """A connection from an address of this cohort."""
        source = (self.address(cohort), 0)
        with socket.create_connection(
            ("127.0.0.1", self.port("store")), 20, source_address=source
        ) as sock:
            yield sock

    @contextmanager
    def client(self, cohort: str) -> Iterator[redis.Redis]:
        """A Redis client on one connection, from an address of this cohort."""
        pool = redis.ConnectionPool(
            connection_class=_From,
            source=self.address(cohort),
            host="127.0.0.1",
            port=self.port("store"),
            socket_timeout=20,
            retry=None,
        )
        made = redis.Redis(connection_pool=pool, single_connection_client=True)
        try:
            yield made
        finally:
            made.close()
            pool.disconnect()

    def metric(self, cohort: str) -> dict[str, int]:
        """What the only metric of the steady state has counted."""
        (metric,) = self.sidecar.get("/api/experiments/x")["metrics"]
        found: dict[str, int] = metric[cohort]
        return found

    def performed(self) -> float:
        return self.faults(listener="store", result="performed")


class _From(redis.Connection):
    """A connection from an address of our choice."""

    def __init__(self, *, source: str, **settings: Any) -> None:
        self._source = source
        super().__init__(**settings)

    def _connect(self) -> socket.socket:
        return socket.create_connection(
            (self.host, self.port), self.socket_timeout, source_address=(self._source, 0)
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("tcp")
        stores = stack.enter_context(redis_server(directory))
        database = stack.enter_context(postgres_server())
        listeners: dict[str, dict[str, Any]] = {
            "store": {"upstream": f"tcp://127.0.0.1:{stores}", "unit": "client_ip"},
            "db": {"upstream": f"tcp://127.0.0.1:{database}", "unit": "client_ip"},
            "each": {"upstream": f"tcp://127.0.0.1:{database}"},
        }
        for listener in listeners.values():
            listener["listen"] = f"127.0.0.1:{free_port()}"
        settings = {"engine": engine, "listeners": listeners}
        sidecar = Sidecar(directory / "sidecar", "http://127.0.0.1:9", settings)
        stack.callback(sidecar.stop)
        world = World(sidecar.start())
        stack.enter_context(leaves_nothing(sidecar))
        yield world


def took(ask: Callable[[], object]) -> float:
    start = time.monotonic()
    ask()
    return seconds_since(start)


@pytest.mark.parametrize("when", ["before", "after"])
def test_latency_is_per_answer_and_for_the_experiment_only(world: World, when: str) -> None:
    world.begin({"latency": "150ms", "when": when})
    before = world.performed()
    with world.client(Cohort.EXPERIMENT) as hit, world.client(Cohort.CONTROL) as spared:
        for _ in range(3):
            assert 0.15 <= took(hit.ping) < 1.0
            assert took(spared.ping) < 0.15
        until(lambda: world.performed() >= before + 3)
        hit.set("key", "value")
        assert spared.get("key") == b"value"


def test_an_open_connection_gets_the_fault_and_loses_it(world: World) -> None:
    with world.client(Cohort.EXPERIMENT) as hit:
        assert took(hit.ping) < 0.2
        world.begin({"latency": "200ms"})
        assert took(hit.ping) >= 0.2
        world.stop()
        assert took(hit.ping) < 0.2


@pytest.mark.parametrize("mode", ["reset", "close"])
def test_a_drop_cuts_the_connection(world: World, mode: str) -> None:
    world.begin({"drop": mode})
    before = world.performed()
    with world.client(Cohort.CONTROL) as spared:
        assert spared.ping()
    with pytest.raises(redis.ConnectionError) as raised, world.client(Cohort.EXPERIMENT) as hit:
        hit.ping()
    assert ("reset" in str(raised.value)) == (mode == "reset")
    until(lambda: world.performed() >= before + 1)


@pytest.mark.parametrize("mode", ["reset", "close"])
def test_a_drop_cuts_a_connection_that_was_open_before(world: World, mode: str) -> None:
    with world.client(Cohort.EXPERIMENT) as hit:
        assert hit.ping()
        world.begin({"drop": mode})
        with pytest.raises(redis.ConnectionError):
            hit.ping()


def test_a_hang_lets_go_when_the_run_ends(world: World) -> None:
    with world.client(Cohort.EXPERIMENT) as hit:
        hit.ping()
        world.begin({"drop": {"mode": "hang", "hang": "1h"}})
        with world.raw(Cohort.EXPERIMENT) as waiting:
            waiting.sendall(b"PING\r\n")
            until(lambda: not world.nothing_active())
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            waiting.settimeout(20)
            with ReleaseTimer():
                world.stop()
                assert waiting.recv(100) == b"+PONG\r\n"
        assert hit.ping()


def test_a_client_that_leaves_a_hang_ends_it(world: World) -> None:
    world.begin({"drop": {"mode": "hang", "hang": "1h"}})
    with world.raw(Cohort.EXPERIMENT) as waiting:
        waiting.sendall(b"PING\r\n")
        until(lambda: not world.nothing_active())
    until(world.nothing_active, 2)


def test_a_hang_closes_at_its_end(world: World) -> None:
    world.begin({"drop": {"mode": "hang", "hang": "300ms"}})
    with pytest.raises(redis.ConnectionError), world.client(Cohort.EXPERIMENT) as hit:
        hit.ping()


def test_bandwidth_paces_what_comes_down(world: World) -> None:
    size = 100_000
    with world.client(Cohort.CONTROL) as spared:
        spared.set("large", b"x" * size)
        world.begin({"bandwidth": {"down": "100KB/s"}})
        assert took(lambda: spared.get("large")) < 0.5
        with world.client(Cohort.EXPERIMENT) as hit:
            start = time.monotonic()
            assert hit.get("large") == b"x" * size
            assert 0.8 < seconds_since(start) < 3


def test_bandwidth_paces_what_goes_up(world: World) -> None:
    world.begin({"bandwidth": {"up": "100KB/s"}})
    with world.client(Cohort.EXPERIMENT) as hit:
        assert 0.8 < took(lambda: hit.set("up", b"x" * 100_000)) < 3
        assert hit.strlen("up") == 100_000


def test_the_end_of_a_run_lets_a_paced_answer_go(world: World) -> None:
    size = 100_000
    with world.client(Cohort.CONTROL) as spared:
        spared.set("large", b"x" * size)
    world.begin({"bandwidth": {"down": "1KB/s"}})
    with world.raw(Cohort.EXPERIMENT) as sock:
        sock.sendall(b"GET large\r\n")
        got = len(sock.recv(100))
        with ReleaseTimer():
            world.stop()
            while got < size:
                got += len(sock.recv(1 << 16))


def test_a_truncation_ends_the_connection_after_so_many_bytes(world: World) -> None:
    world.begin({"truncate": "10B"})
    before = world.performed()
    with world.raw(Cohort.EXPERIMENT) as raw:
        raw.sendall(b"PING\r\n" * 3)
        received = b""
        while piece := raw.recv(100):
            received += piece
    assert received == b"+PONG\r\n+PO"
    until(lambda: world.performed() == before + 1)
    with world.client(Cohort.CONTROL) as spared:
        assert all(spared.ping() for _ in range(5))


ANSWERED = {"name": "answered", "at": "store", "success_rate": {"drop": "10pp"}}


def test_turns_are_measured_and_a_verdict_comes_of_them(world: World) -> None:
    world.begin({"drop": "close"}, steady_state=[ANSWERED])
    with world.client(Cohort.CONTROL) as spared:
        for _ in range(40):
            spared.ping()
    with pytest.raises(redis.ConnectionError), world.client(Cohort.EXPERIMENT) as hit:
        hit.ping()
    until(lambda: world.metric("experiment")["events"] >= 1)
    until(lambda: world.metric("control")["events"] >= 40)
    assert world.metric("control")["bad"] == 0
    assert world.metric("experiment")["bad"] == world.metric("experiment")["events"]


def test_who_is_cut_off_before_a_word_counts_once_as_well(world: World) -> None:
    world.begin({"drop": "close"}, steady_state=[ANSWERED])
    with world.raw(Cohort.EXPERIMENT) as silent, world.raw(Cohort.CONTROL):
        assert silent.recv(1) == b""
        until(lambda: world.metric("experiment")["events"] >= 1)
    counts = world.metric("experiment")
    assert (counts["events"], counts["bad"]) == (1, 1)
    assert world.metric("control")["events"] == 0


def test_a_client_may_close_after_its_upstream(world: World) -> None:
    """As psql does when it is slow to close: then there is nothing left to be read or sent."""
    world.begin({"latency": "1ms"})
    with leaves_nothing(world.sidecar), world.raw(Cohort.EXPERIMENT) as sock:
        sock.sendall(b"QUIT\r\n")
        assert read_all(sock) == b"+OK\r\n"


def test_an_answer_on_its_way_arrives_though_both_have_closed(world: World) -> None:
    world.begin({"latency": "500ms", "when": "after"})
    with world.client(Cohort.CONTROL) as spared:
        before = spared.info()
        with world.raw(Cohort.EXPERIMENT) as sock:
            sock.sendall(b"PING\r\nQUIT\r\n")
            until(lambda: _came_and_went(before, spared.info()))
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"+PONG\r\n+OK\r\n"


def _came_and_went(before: dict[str, int], now: dict[str, int]) -> bool:
    """Whether Redis has closed a connection that it did not have before."""
    came = now["total_connections_received"] > before["total_connections_received"]
    return came and now["connected_clients"] <= before["connected_clients"]


def test_postgres_waits_and_goes_on(world: World) -> None:
    port = world.port("each")
    with query(port) as connection:
        assert took(lambda: connection.execute("select 1")) < 0.15
        every = {"experiment": "50%", "control": "50%"}
        world.begin({"latency": "150ms"}, at="each", cohorts=every)
        connections, slow = [], list[float]()
        # Each connection is a unit of its own and is enrolled by lot, half of them in each cohort.
        while len(slow) < 8 or ({t >= 0.15 for t in slow} != {True, False} and len(slow) < 64):
            connections.append(one := query(port, 20))
            slow.append(took(lambda c=one: c.execute("select 1")))  # type: ignore[misc]
        assert {t >= 0.15 for t in slow} == {True, False}, slow
        assert all(c.execute("select 41 + 1").fetchone() == (42,) for c in connections)
        for one in connections:
            one.close()


def test_postgres_is_told_that_its_connection_is_lost(world: World) -> None:
    port = world.port("db")
    while world.cohort("127.0.0.1") is not Cohort.EXPERIMENT:
        world.run += 1
    with query(port) as connection:
        world.begin({"drop": "reset"}, at="db")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    world.stop()
    with query(port) as again:
        assert again.execute("select 1").fetchone() == (1,)


def test_others_at_postgres_notice_nothing(world: World) -> None:
    while world.cohort("127.0.0.1") is not Cohort.CONTROL:
        world.run += 1
    world.begin({"drop": "reset"}, at="db")
    with query(world.port("db")) as spared:
        assert spared.execute("select 1").fetchone() == (1,)


def test_clients_that_leave_rudely_leave_nothing_behind(world: World) -> None:
    """Whoever is reset before we have accepted him is no error of ours."""
    world.begin({"latency": "50ms"})
    for wait in (0.0, 0.0, 0.0, 0.01, 0.06):
        with world.raw(Cohort.EXPERIMENT) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.sendall(b"PING\r\n")
            time.sleep(wait)
    assert world.sidecar.metric("counterfault_internal_errors_total") == 0
