"""Chooses which upstream node to try, and leaves nodes that refused alone for a while."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from mitmproxy import http
from mitmproxy.proxy.layer import CommandGenerator

from counterfault.proxy.engines.plan import Route
from counterfault.proxy.values.addresses import HostPort, upstream_address

# Seconds after which a node that refused is tried again; the other nodes serve its users meanwhile.
DOWN_FOR = 1.0
# Nodes that are tried for one request: its own node and one other.
ATTEMPTS = 2
# Nodes remembered as down; clients of a forward proxy can name any number of them.
_MOST_DOWN = 1024


@lru_cache(1024)
def endpoint_of(node: str) -> tuple[HostPort, bool]:
    """Host and port of an upstream's URL, and whether it speaks TLS."""
    return upstream_address(node), node.startswith("https:")


def nodes_of(route: Route, request: http.Request) -> tuple[str, ...]:
    """URLs of the listener's upstreams; at a forward proxy, the one that the request names."""
    if route.upstreams:
        return route.upstreams
    host = f"[{request.host}]" if ":" in request.host else request.host
    return (f"{request.scheme}://{host}:{request.port}",)


class Upstreams:
    """The nodes of a worker's listeners, with a passive memory of failures."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._down: dict[str, float] = {}

    def candidates(self, nodes: Sequence[str]) -> Sequence[str]:
        """Return up to ATTEMPTS of `nodes`; nodes that failed a moment ago come last."""
        if self._down and len(nodes) > 1:
            now = self._clock()
            nodes = sorted(nodes, key=lambda node: self._down.get(node, 0.0) > now)
        return nodes[:ATTEMPTS]

    def connect(
        self, nodes: Sequence[str], attempt: Callable[[str], CommandGenerator[str | None]]
    ) -> CommandGenerator[str | None]:
        """Try nodes in their order until one connects.

        Args:
            nodes: URLs, as `candidates` takes them.
            attempt: Yields the commands that connect to a node, and returns an error or None.

        Returns:
            None if a node is connected, else the error of the last attempt.
        """
        error: str | None = "no upstream"
        for node in self.candidates(nodes):
            error = yield from attempt(node)
            if error is None:
                self._down.pop(node, None)
                return None
            self._mark_down(node)
        return error

    def _mark_down(self, node: str) -> None:
        if len(self._down) >= _MOST_DOWN:
            self._down.clear()
        self._down[node] = self._clock() + DOWN_FOR
