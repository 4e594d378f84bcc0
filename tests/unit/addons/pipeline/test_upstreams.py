"""Nodes are tried in their order; one that has failed comes last for a while."""

from collections.abc import Iterable

from mitmproxy.proxy import commands
from mitmproxy.proxy.layer import CommandGenerator

from counterfault.addons.pipeline.upstreams import (
    ATTEMPTS,
    DOWN_FOR,
    Upstreams,
    endpoint_of,
)

NODES = ("http://a", "http://b", "http://c")


class World:
    """Upstreams on a clock that a test sets; nodes in `refusing` accept no connection."""

    def __init__(self, refusing: Iterable[str] = ()) -> None:
        self.now = 0.0
        self.refusing = set(refusing)
        self.tried: list[str] = []
        self.upstreams = Upstreams(lambda: self.now)

    def _attempt(self, node: str) -> CommandGenerator[str | None]:
        yield commands.Log(node)
        self.tried.append(node)
        return "refused" if node in self.refusing else None

    def connect(self, nodes: tuple[str, ...] = NODES) -> str | None:
        """The error, if no node accepts; `tried` are the nodes of this call."""
        self.tried.clear()
        generator = self.upstreams.connect(nodes, self._attempt)
        try:
            while True:
                next(generator)
        except StopIteration as done:
            error: str | None = done.value
            return error


def test_a_units_own_node_is_tried_first_and_alone_if_it_accepts() -> None:
    world = World()
    assert world.connect() is None
    assert world.tried == ["http://a"]


def test_the_next_node_serves_while_the_own_one_refuses_and_is_left_alone_then() -> None:
    world = World(refusing={"http://a"})
    assert world.connect() is None
    assert world.tried == ["http://a", "http://b"]
    assert world.connect() is None
    assert world.tried == ["http://b"]
    world.refusing.clear()
    world.now = DOWN_FOR
    assert world.connect() is None
    assert world.tried == ["http://a"]


def test_after_all_attempts_the_last_error_is_the_answer() -> None:
    world = World(refusing=NODES)
    assert world.connect() == "refused"
    assert world.tried == [*NODES[:ATTEMPTS]]
    assert World().connect(()) == "no upstream"


def test_a_node_that_accepts_is_up_again() -> None:
    world = World(refusing={"http://a"})
    world.connect(("http://a",))
    world.refusing.clear()
    world.connect(("http://a",))
    assert [*world.upstreams.candidates(NODES)] == ["http://a", "http://b"]


def test_an_endpoint_says_whether_it_speaks_tls() -> None:
    assert endpoint_of("https://shop") == (("shop", 443), True)
    assert endpoint_of("tcp://shop:6379") == (("shop", 6379), False)
