"""One request and its answer, as our addons see it on their way through the hooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from mitmproxy import http

from addons.live import Hold
from addons.upstream import Upstreams
from proxy.cohorts import Cohort, Enrolment
from proxy.http import Request
from proxy.plan import NOTHING, Decision, Measured, Route
from proxy.sidecar import Limits

_KEY = "counterfault"


class Peer(Protocol):
    """The client's connection."""

    route: Route
    """As it was when the client came; the plan may have another for its listener by now."""
    upstreams: Upstreams
    exchanges: set[Exchange]

    @property
    def limits(self) -> Limits:
        """As they are now."""

    def intercepts(self, host: str) -> bool:
        """Whether TLS to this host, by CONNECT, is to be read."""

    def reset(self) -> None:
        """Cut it with a TCP RST."""


@dataclass(eq=False, slots=True)
class Exchange:
    """Made when the request's head is there; ends once, with an answer or without."""

    peer: Peer
    route: Route
    request: Request
    started: float
    nodes: tuple[str, ...]
    """The upstreams to try, in order."""
    unit: bytes | None = None
    enrolment: Enrolment | None = None
    measured: tuple[Measured, ...] = ()
    decision: Decision = NOTHING
    replaced: bool = False
    """An injected answer stands in the upstream's place."""
    status: int | None = None
    """What the client was sent, once its head is on the way."""
    over: bool = False
    holds: set[Hold] = field(default_factory=set)

    @property
    def experiment(self) -> str:
        return self.enrolment.experiment if self.enrolment else ""

    @property
    def cohort(self) -> Cohort:
        return self.enrolment.cohort if self.enrolment else Cohort.BYSTANDER

    def release(self) -> None:
        """The client has left: what is held for it is held in vain."""
        for hold in tuple(self.holds):
            hold.release()


def attach(flow: http.HTTPFlow, exchange: Exchange) -> None:
    flow.metadata[_KEY] = exchange


def exchange_of(flow: http.HTTPFlow) -> Exchange | None:
    """The flow's exchange; None if making one has failed."""
    exchange: Exchange | None = flow.metadata.get(_KEY)
    return exchange
