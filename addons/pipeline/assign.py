"""match -> assign: finds the cohort of a request, tags it, and draws its faults."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from itertools import cycle

from mitmproxy import http

from counterfault.addons.pipeline.exchange import Exchange, Peer, attach
from counterfault.addons.pipeline.upstreams import nodes_of
from counterfault.addons.state import WorkerState
from counterfault.proxy.engines.plan import Plan, Route
from counterfault.proxy.experiments import cohort_tag
from counterfault.proxy.experiments.cohorts import Enrolment
from counterfault.proxy.values.addresses import Network
from counterfault.proxy.values.request import Request


class Assign:
    """Makes the exchange of each request, replaces its cohort tag, draws its faults."""

    def __init__(self, state: WorkerState) -> None:
        """Act on the plan of `state`, whichever that is when a request comes."""
        self._state = state
        self._round_robin: dict[tuple[str, ...], cycle[int]] = {}

    def requestheaders(self, flow: http.HTTPFlow, peer: Peer) -> None:
        """Handle mitmproxy's hook: the request's head is there."""
        state, plan = self._state, self._state.plan
        route = plan.routes.get(peer.route.name, peer.route)
        message = flow.request.data
        request = Request(
            message.method,
            message.authority or _host(message.headers.fields),
            message.path,
            message.headers.fields,
        )
        # A listener may have become a forward proxy since the client came.
        upstreams = route.upstreams or nodes_of(peer.route, flow.request)
        exchange = Exchange(peer, route, request, state.clock(), upstreams)
        attach(flow, exchange)
        peer.exchanges.add(exchange)
        if flow.error is not None:  # mitmproxy has refused the request
            exchange.status = 400
            return
        exchange.unit = plan.unit(request)
        if route.upstreams:
            exchange.nodes = self._nodes(route, exchange.unit)
        self._enrol(exchange, plan, flow)

    def _enrol(self, exchange: Exchange, plan: Plan, flow: http.HTTPFlow) -> None:
        state, request, route = self._state, exchange.request, exchange.route
        stripped = cohort_tag.strip(request.headers)
        peer = flow.client_conn.peername
        trusted_tag = stripped.tag
        if trusted_tag is not None and not _within(peer[0], route.trusted):
            trusted_tag = None
        exchange.tag = trusted_tag
        enrolment = plan.assign(request, exchange.unit, trusted_tag) if state.leased() else None
        carried = enrolment or trusted_tag
        headers = cohort_tag.carry(stripped.headers, carried) if carried else stripped.headers
        if enrolment is not None:
            self._prepare(exchange, plan, enrolment)
        # Last: if any of the above has failed, the request is as it came.
        if headers is not request.headers:
            flow.request.data.headers = http.Headers(headers)

    def _prepare(self, exchange: Exchange, plan: Plan, enrolment: Enrolment) -> None:
        listener, request = exchange.route.name, exchange.request
        measured = plan.measured(listener, request, enrolment)
        decision = plan.decide(listener, request, enrolment, self._state.random)
        exchange.enrolment, exchange.measured, exchange.decision = enrolment, measured, decision
        exchange.open_key = self._state.begin(listener, enrolment, measured, exchange.started)
        self._state.count_user(enrolment)

    def _nodes(self, route: Route, unit: bytes | None) -> tuple[str, ...]:
        """Return the nodes to try, in their order.

        A unit has a node of its own; requests without a unit take the nodes in turn.
        """
        if unit is not None or len(route.upstreams) == 1:
            return route.nodes(unit or b"")
        count = len(route.upstreams)
        start = next(self._round_robin.setdefault(route.upstreams, cycle(range(count))))
        return route.upstreams[start:] + route.upstreams[:start]


def _host(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return next((value for name, value in headers if name.lower() == b"host"), b"")


@lru_cache(4096)
def _within(peer: str, networks: tuple[Network, ...]) -> bool:
    address = ip_address(peer.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
