"""request -> match -> assign -> decide: who this request belongs to and what will happen to it."""

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
    """Gives every request its exchange, strips and sets the tag, draws the faults."""

    def __init__(self, live: WorkerState) -> None:
        self._live = live
        self._turns: dict[tuple[str, ...], cycle[int]] = {}

    def requestheaders(self, flow: http.HTTPFlow, peer: Peer) -> None:
        live, plan = self._live, self._live.plan
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
        exchange = Exchange(peer, route, request, live.clock(), upstreams)
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
        live, request, route = self._live, exchange.request, exchange.route
        stripped = cohort_tag.strip(request.headers)
        peer = flow.client_conn.peername
        believed = stripped.tag
        if believed is not None and not _within(peer[0], route.trusted):
            believed = None
        exchange.tag = believed
        enrolment = plan.assign(request, exchange.unit, believed) if live.leased() else None
        carried = enrolment or believed
        headers = cohort_tag.carry(stripped.headers, carried) if carried else stripped.headers
        if enrolment is not None:
            self._prepare(exchange, plan, enrolment)
        # Last: if any of the above has failed, the request is as it came.
        if headers is not request.headers:
            flow.request.data.headers = http.Headers(headers)

    def _prepare(self, exchange: Exchange, plan: Plan, enrolment: Enrolment) -> None:
        listener, request = exchange.route.name, exchange.request
        measured = plan.measured(listener, request, enrolment)
        decision = plan.decide(listener, request, enrolment, self._live.random)
        exchange.enrolment, exchange.measured, exchange.decision = enrolment, measured, decision
        self._live.count_user(enrolment)

    def _nodes(self, route: Route, unit: bytes | None) -> tuple[str, ...]:
        """Where to try, in order: sticky by unit, in turn for requests without one."""
        if unit is not None or len(route.upstreams) == 1:
            return route.nodes(unit or b"")
        count = len(route.upstreams)
        start = next(self._turns.setdefault(route.upstreams, cycle(range(count))))
        return route.upstreams[start:] + route.upstreams[:start]


def _host(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return next((value for name, value in headers if name.lower() == b"host"), b"")


@lru_cache(4096)
def _within(peer: str, networks: tuple[Network, ...]) -> bool:
    address = ip_address(peer.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
