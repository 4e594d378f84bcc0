"""Several upstreams: whom a user is served by, and what happens when a node is down."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

from counterfault.proxy.engines.upstream_ring import ByteRing
from tests.support.programs import Nginx, Sidecar, free_port, until, user

USERS = [f"user-{i}" for i in range(60)]
# A node that is back is asked again after a second.
RETURN = 5.0


class World:
    """A sidecar with two workers; `nodes` leads to three nginx, `one` and `two` to one each."""

    def __init__(self, engine: str, sidecar: Sidecar, nodes: list[Nginx]) -> None:
        self.engine = engine
        self.sidecar = sidecar
        self.nodes = nodes

    def connect(self, listener: str = "nodes") -> HTTPConnection:
        """A client, which keeps its connection."""
        address = self.sidecar.settings["listeners"][listener]["listen"]
        return HTTPConnection(address, timeout=10)

    def ask(self, unit: str | None, listener: str = "nodes") -> str:
        """The node that answers a request on a new connection."""
        with closing(self.connect(listener)) as client:
            return node(client, unit)

    def places(self, listener: str = "nodes") -> dict[str, str]:
        return {unit: self.ask(unit, listener) for unit in USERS}


def node(client: HTTPConnection, unit: str | None, body: str | None = None) -> str:
    headers = {} if unit is None else {"x-user-id": unit}
    client.request("POST" if body else "GET", "/", body, headers)
    answer = client.getresponse()
    text = answer.read().decode()
    return text if answer.status == 200 else f"status {answer.status}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("upstreams")
    with ExitStack() as stack:
        nodes = [
            Nginx(directory / f"node-{i}", f'location / {{ return 200 "node-{i}"; }}')
            for i in range(3)
        ]
        for nginx in nodes:
            stack.callback(nginx.stop)
        away = f"http://127.0.0.1:{free_port()}"
        # Whose queue is full: it does not even refuse.
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        upstreams = {
            "nodes": [nginx.url for nginx in nodes],
            "one": nodes[1].url,
            "two": nodes[2].url,
            "names": [nginx.url.replace("127.0.0.1", "localhost") for nginx in nodes],
            "half-away": [nodes[0].url, away],
            "half-deaf": [nodes[0].url, f"http://127.0.0.1:{port}"],
        }
        listeners = {
            name: {"listen": f"127.0.0.1:{free_port()}", "upstream": upstream}
            for name, upstream in upstreams.items()
        }
        limits = {"enrolled": "100%", "connect": "300ms"}
        sidecar = Sidecar(
            directory / "sidecar",
            nodes[0].url,
            {"engine": engine, "listeners": listeners, "workers": 2, "limits": limits},
        )
        stack.callback(sidecar.stop)
        sidecar.start()
        yield World(engine, sidecar, nodes)
        assert sidecar.metric("counterfault_internal_errors_total") == 0


def test_each_listener_has_an_upstream_of_its_own(world: World):
    assert world.ask("a", "inbound") == "node-0"
    assert world.ask("a", "one") == "node-1"
    assert world.ask("a", "two") == "node-2"


def test_a_user_stays_with_a_node_over_connections_and_workers(world: World):
    before = world.places()
    for _ in range(3):
        assert world.places() == before
    with closing(world.connect()) as client:
        assert {unit: node(client, unit) for unit in USERS} == before


def test_a_user_is_where_the_ring_says_whatever_the_engine(world: World):
    urls = [nginx.url for nginx in world.nodes]
    ring = ByteRing(urls)
    assert world.places() == {
        unit: f"node-{urls.index(ring.get_node(unit.encode()))}" for unit in USERS
    }


def test_a_user_stays_with_a_node_that_has_a_name_too(world: World):
    before = world.places("names")
    assert set(before.values()) == {"node-0", "node-1", "node-2"}
    assert world.places("names") == before


def test_users_are_spread_over_the_nodes(world: World):
    counts = Counter(world.places().values())
    assert sorted(counts) == ["node-0", "node-1", "node-2"]
    assert min(counts.values()) >= len(USERS) / 10


def test_requests_without_a_user_go_round(world: World):
    with closing(world.connect()) as client:
        asked = [node(client, None) for _ in range(30)]
    if world.engine == "envoy":  # by lot
        assert set(asked) == {"node-0", "node-1", "node-2"}
    else:
        assert Counter(asked) == {"node-0": 10, "node-1": 10, "node-2": 10}


def test_enrolment_does_not_move_a_user_to_another_node(world: World):
    before = world.places()
    fault = {"at": "nodes", "error": 500, "match": {"path": "/never"}}
    world.sidecar.running(faults=[fault])
    assert {user("experiment"), user("control"), user("bystander")} < set(before)
    assert world.places() == before


def test_only_the_users_of_a_node_that_is_down_move_and_all_are_served(world: World):
    before = world.places()
    with closing(world.connect()) as kept:  # has a connection to each node
        for unit in USERS:
            assert node(kept, unit) == before[unit]
        world.nodes[1].stop()
        # Envoy's own ring, which is theirs meanwhile, is another one while the node is tried again.
        lots = world.engine == "envoy"
        try:
            moved = world.places()
            again = world.places()
            posted = {unit: node(kept, unit, "body") for unit in USERS}
            for found in (again, posted):
                others = [unit for unit in USERS if before[unit] != "node-1" or not lots]
                assert [found[unit] for unit in others] == [moved[unit] for unit in others]
                assert {*found.values()} == {"node-0", "node-2"}
            assert {node(kept, None) for _ in range(20)} == {"node-0", "node-2"}
        finally:
            world.nodes[1].start()
        for unit in USERS:
            if before[unit] == "node-1":
                assert moved[unit] in ("node-0", "node-2")
        assert all(moved[unit] == before[unit] for unit in USERS if before[unit] != "node-1")
        until(lambda: world.places() == before, RETURN)
        if world.engine == "envoy":  # each of its threads learns of a node's return by itself
            until(lambda: {unit: node(kept, unit) for unit in USERS} == before, RETURN)
        assert {unit: node(kept, unit) for unit in USERS} == before


def test_a_node_that_was_never_there_is_passed_over(world: World):
    assert {world.ask(unit, "half-away") for unit in [*USERS, None]} == {"node-0"}


def test_a_node_that_does_not_open_its_door_is_passed_over(world: World):
    assert {world.ask(unit, "half-deaf") for unit in [*USERS[:20], None]} == {"node-0"}


def test_when_every_node_is_down_the_answer_says_so_and_no_node_is_forgotten(world: World):
    before = world.places()
    for nginx in world.nodes:
        nginx.stop()
    try:
        assert {world.ask(unit) for unit in [*USERS[:10], None]} == {"status 502"}
    finally:
        for nginx in world.nodes:
            nginx.start()
    until(lambda: world.places() == before, RETURN)
