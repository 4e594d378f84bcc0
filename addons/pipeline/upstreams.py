"""Which upstream node to try, and which to leave alone for a while."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from mitmproxy import http

from counterfault.proxy.engines.plan import Route

# A node that refused is asked again after this many seconds; others bear its users meanwhile.
DOWN_FOR = 1.0
# Attempts per request: the node itself and one other.
ATTEMPTS = 2
# Nodes remembered as down; clients of a forward proxy can name any number of them.
_MOST_DOWN = 1024


@lru_cache(1024)
def address_of(url: str) -> tuple[tuple[str, int], bool]:
    """Host and port of an upstream's url, and whether it speaks TLS."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return (parts.hostname or "", parts.port or (443 if tls else 80)), tls


def targets(route: Route, request: http.Request) -> tuple[str, ...]:
    """The listener's upstreams; at a forward proxy what the request itself names."""
    if route.upstreams:
        return route.upstreams
    host = f"[{request.host}]" if ":" in request.host else request.host
    return (f"{request.scheme}://{host}:{request.port}",)


class Upstreams:
    """The nodes of a worker's listeners, with a passive memory of failures."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._down: dict[str, float] = {}

    def likely(self, nodes: Sequence[str]) -> Sequence[str]:
        """Up to ATTEMPTS nodes, those that are thought to be up first."""
        if self._down and len(nodes) > 1:
            now = self._clock()
            nodes = sorted(nodes, key=lambda node: self._down.get(node, 0.0) > now)
        return nodes[:ATTEMPTS]

    def fails(self, node: str) -> None:
        if len(self._down) >= _MOST_DOWN:
            self._down.clear()
        self._down[node] = self._clock() + DOWN_FOR

    def works(self, node: str) -> None:
        if self._down:
            self._down.pop(node, None)
