"""Faults on raw connections: real Redis and PostgreSQL, asked by their own clients."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from programs import MakeSidecar, Sidecar, free_port, until
from stores import postgres_server, query, redis_server, seconds

from proxy.cohorts import Arcs, Cohort, salt_of

# 127.0.0.0/8 is all loopback: each of these addresses can be a client of its own.
ADDRESSES = [f"127.0.0.{i}" for i in range(2, 120)]


def address(cohort: str, run: int = 1) -> str:
    """A client address of a cohort, for shares of 30 %."""
    arcs = Arcs("x", salt_of("x", run), 0.3, 0.3)
    return next(
        a
        for a in ADDRESSES
        if (claim := arcs.claim(a.encode())) is not None and claim.cohort == cohort
    )


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(scope="module")
def postgres_port() -> Iterator[int]:
    with postgres_server() as port:
        yield port


class Store:
    """A sidecar in front of a store; its clients are enrolled by their addresses."""

    def __init__(self, sidecar: Sidecar, port: int) -> None:
        self.sidecar, self.port = sidecar, port

    def begin(self, fault: dict[str, Any], **more: Any) -> None:
        self.sidecar.running(faults=[{"at": "store", **fault}], **more)

    @contextmanager
    def client(self, cohort: str) -> Iterator[redis.Redis]:
        """A Redis client on one connection, from an address of this cohort."""
        pool = redis.ConnectionPool(
            connection_class=_From,
            source=address(cohort),
            host="127.0.0.1",
            port=self.port,
            socket_timeout=20,
            retry=None,
        )
        made = redis.Redis(connection_pool=pool, single_connection_client=True)
        try:
            yield made
        finally:
            made.close()
            pool.disconnect()

    def faults(self, result: str = "performed") -> float:
        return self.sidecar.metric("counterfault_faults_total", listener="store", result=result)


class _From(redis.Connection):
    """A connection from an address of our choice."""

    def __init__(self, *, source: str, **settings: Any) -> None:
        self._source = source
        super().__init__(**settings)

    def _connect(self) -> socket.socket:
        return socket.create_connection(
            (self.host, self.port), self.socket_timeout, source_address=(self._source, 0)
        )


@pytest.fixture
def store(make_sidecar: MakeSidecar, redis_port: int) -> Store:
    port = free_port()
    listener = {
        "listen": f"127.0.0.1:{port}",
        "upstream": f"tcp://127.0.0.1:{redis_port}",
        "unit": "client_ip",
    }
    sidecar = make_sidecar("http://127.0.0.1:9", listeners={"store": listener})
    return Store(sidecar.start(), port)


def took(ask: Callable[[], object]) -> float:
    start = time.monotonic()
    ask()
    return seconds(start)


@pytest.mark.parametrize("when", ["before", "after"])
def test_latency_is_per_answer_and_for_the_experiment_only(store: Store, when: str) -> None:
    store.begin({"latency": "150ms", "when": when})
    with store.client(Cohort.EXPERIMENT) as hit, store.client(Cohort.CONTROL) as spared:
        for _ in range(3):
            assert 0.15 <= took(hit.ping) < 0.4
            assert took(spared.ping) < 0.1
        assert store.faults() >= 3
        hit.set("key", "value")
        assert spared.get("key") == b"value"


def test_an_open_connection_gets_the_fault_and_loses_it(store: Store) -> None:
    with store.client(Cohort.EXPERIMENT) as hit:
        assert took(hit.ping) < 0.1
        store.begin({"latency": "200ms"})
        assert took(hit.ping) >= 0.2
        store.sidecar.post("/api/experiments/x/stop")
        assert took(hit.ping) < 0.1


@pytest.mark.parametrize("mode", ["reset", "close"])
def test_a_drop_cuts_the_connection(store: Store, mode: str) -> None:
    store.begin({"drop": mode})
    with store.client(Cohort.CONTROL) as spared:
        assert spared.ping()
    with pytest.raises(redis.ConnectionError) as raised, store.client(Cohort.EXPERIMENT) as hit:
        hit.ping()
    assert ("reset" in str(raised.value)) == (mode == "reset")
    until(lambda: store.faults() >= 1)


def test_a_hang_lets_go_when_the_run_ends(store: Store) -> None:
    with store.client(Cohort.EXPERIMENT) as hit:
        hit.ping()
        store.begin({"drop": {"mode": "hang", "hang": "1h"}})
        with socket.create_connection(
            ("127.0.0.1", store.port), 20, source_address=(address(Cohort.EXPERIMENT), 0)
        ) as waiting:
            waiting.sendall(b"PING\r\n")
            until(lambda: store.faults() >= 1)
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            waiting.settimeout(20)
            store.sidecar.post("/api/experiments/x/stop")
            stopped = time.monotonic()
            assert waiting.recv(100) == b"+PONG\r\n"
            assert seconds(stopped) < 0.25
        assert hit.ping()


def test_a_hang_closes_at_its_end(store: Store) -> None:
    store.begin({"drop": {"mode": "hang", "hang": "300ms"}})
    with pytest.raises(redis.ConnectionError), store.client(Cohort.EXPERIMENT) as hit:
        hit.ping()


def test_bandwidth_paces_what_comes_down(store: Store) -> None:
    size = 100_000
    with store.client(Cohort.CONTROL) as spared:
        spared.set("large", b"x" * size)
        store.begin({"bandwidth": {"down": "100KB/s"}})
        assert took(lambda: spared.get("large")) < 0.3
        with store.client(Cohort.EXPERIMENT) as hit:
            start = time.monotonic()
            assert hit.get("large") == b"x" * size
            assert 0.8 < seconds(start) < 1.6


def test_bandwidth_paces_what_goes_up(store: Store) -> None:
    store.begin({"bandwidth": {"up": "100KB/s"}})
    with store.client(Cohort.EXPERIMENT) as hit:
        assert 0.8 < took(lambda: hit.set("up", b"x" * 100_000)) < 1.6
        assert hit.strlen("up") == 100_000


def test_a_truncation_ends_the_connection_after_so_many_bytes(store: Store) -> None:
    store.begin({"truncate": "10B"})
    with socket.create_connection(
        ("127.0.0.1", store.port), 20, source_address=(address(Cohort.EXPERIMENT), 0)
    ) as raw:
        raw.sendall(b"PING\r\n" * 3)
        received = b""
        while piece := raw.recv(100):
            received += piece
    assert received == b"+PONG\r\n+PO"
    until(lambda: store.faults() == 1)
    with store.client(Cohort.CONTROL) as spared:
        assert all(spared.ping() for _ in range(5))


def test_turns_are_measured_and_a_verdict_comes_of_them(store: Store) -> None:
    answered = {"name": "answered", "at": "store", "success_rate": {"drop": "10pp"}}
    store.begin({"drop": "close"}, steady_state=[answered])
    with store.client(Cohort.CONTROL) as spared:
        for _ in range(40):
            spared.ping()
    with pytest.raises(redis.ConnectionError), store.client(Cohort.EXPERIMENT) as hit:
        hit.ping()
    until(lambda: store.sidecar.metric("counterfault_requests_total", cohort="experiment") >= 1)
    until(lambda: _events(store, "control") >= 40)
    (metric,) = store.sidecar.get("/api/experiments/x")["metrics"]
    assert metric["control"]["bad"] == 0
    assert metric["experiment"]["bad"] == metric["experiment"]["events"] >= 1


def _events(store: Store, cohort: str) -> int:
    (metric,) = store.sidecar.get("/api/experiments/x")["metrics"]
    events: int = metric[cohort]["events"]
    return events


def test_postgres_waits_and_goes_on(make_sidecar: MakeSidecar, postgres_port: int) -> None:
    port = free_port()
    listener = {"listen": f"127.0.0.1:{port}", "upstream": f"tcp://127.0.0.1:{postgres_port}"}
    sidecar = make_sidecar(
        "http://127.0.0.1:9", listeners={"db": listener}, limits={"enrolled": "100%"}
    ).start()
    with query(port) as connection:
        assert took(lambda: connection.execute("select 1")) < 0.1
        every = {"experiment": "50%", "control": "50%"}
        sidecar.running(cohorts=every, faults=[{"at": "db", "latency": "150ms"}])
        connections = [query(port, 20) for _ in range(8)]
        slow = [took(lambda c=c: c.execute("select 1")) for c in connections]  # type: ignore[misc]
        assert {t >= 0.15 for t in slow} == {True, False}, slow
        assert all(c.execute("select 41 + 1").fetchone() == (42,) for c in connections)
        for one in connections:
            one.close()
    until(lambda: sidecar.metric("counterfault_faults_active") == 0)


def test_postgres_is_told_that_its_connection_is_lost(
    make_sidecar: MakeSidecar, postgres_port: int
) -> None:
    port = free_port()
    listener = {
        "listen": f"127.0.0.1:{port}",
        "upstream": f"tcp://127.0.0.1:{postgres_port}",
        "unit": "client_ip",
    }
    sidecar = make_sidecar("http://127.0.0.1:9", listeners={"db": listener}).start()
    run = next(n for n in range(1, 99) if _cohort_of_loopback(n) is Cohort.EXPERIMENT)
    with query(port) as connection:
        sidecar.running(run=run, faults=[{"at": "db", "drop": "reset"}])
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    sidecar.post("/api/experiments/x/stop")
    with query(port) as again:
        assert again.execute("select 1").fetchone() == (1,)


def _cohort_of_loopback(run: int) -> Cohort | None:
    claim = Arcs("x", salt_of("x", run), 0.3, 0.3).claim(b"127.0.0.1")
    return claim.cohort if claim else None


def test_nothing_is_left_behind(store: Store) -> None:
    (pid,) = store.sidecar.workers()
    before = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    store.begin({"latency": "50ms"})
    for _ in range(20):
        with store.client(Cohort.EXPERIMENT) as hit:
            hit.ping()
    with socket.create_connection(("127.0.0.1", store.port)) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.sendall(b"PING\r\n")
    until(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) <= before)
    assert store.sidecar.metric("counterfault_faults_active") == 0
    assert store.sidecar.metric("counterfault_internal_errors_total") == 0
