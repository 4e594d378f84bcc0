"""One request and its answer, as our addons see it on their way through the hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mitmproxy import http
from mitmproxy.proxy import commands

from counterfault.addons.faults.exchange_effects import ExchangeEffects
from counterfault.addons.pipeline.upstreams import Upstreams
from counterfault.addons.state import HeldFault
from counterfault.proxy.config.sidecar import Limits
from counterfault.proxy.engines.plan import (
    NOTHING,
    Decision,
    EachMessage,
    Injection,
    Plan,
    Route,
)
from counterfault.proxy.experiments.cohorts import Cohort, Enrolment
from counterfault.proxy.measurement.exchanges import Measured
from counterfault.proxy.values.request import Request

if TYPE_CHECKING:
    from counterfault.addons.faults.active_fault import ActiveFault

_KEY = "counterfault"


class Injecting(Protocol):
    """What performs faults on single messages; `clock` in monotonic seconds."""

    clock: Callable[[], float]

    def messages(self, exchange: Exchange) -> tuple[EachMessage, ...]:
        """The rules of a WebSocket's messages, as they are now."""

    def draw(self, exchange: Exchange, each: EachMessage) -> ActiveFault | None:
        """A claim to a fault of a message, which the caller has to release."""


class Peer(Protocol):
    """The client's connection."""

    route: Route
    """As it was when the client came; the plan may have another for its listener by now."""
    upstreams: Upstreams
    exchanges: set[Exchange]
    injecting: Injecting

    @property
    def limits(self) -> Limits:
        """As they are now."""

    def intercepts(self, host: str) -> bool:
        """Whether TLS to this host, by CONNECT, is to be read."""

    def run_inline(self, hook: commands.StartHook) -> bool:
        """Run a hook's handlers; False if the layer has to yield it, as one of them waits."""

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
    tag: Enrolment | None = None
    """What a trusted peer says of it."""
    enrolment: Enrolment | None = None
    measured: tuple[Measured, ...] = ()
    decision: Decision = NOTHING
    replaced: bool = False
    """An injected answer stands in the upstream's place."""
    status: int | None = None
    """What the client was sent, once its head is on the way."""
    over: bool = False
    held_faults: set[HeldFault] = field(default_factory=set)
    pending: list[Injection] = field(default_factory=list)
    """Drawn, and not tried yet."""
    effects: ExchangeEffects | None = None
    rules: tuple[Plan, tuple[EachMessage, ...]] | None = None
    """Of a WebSocket's messages, as that plan has them."""

    @property
    def experiment(self) -> str:
        return self.enrolment.experiment if self.enrolment else ""

    @property
    def cohort(self) -> Cohort:
        return self.enrolment.cohort if self.enrolment else Cohort.BYSTANDER

    def release(self) -> None:
        """The client has left: what is held for it is held in vain."""
        for fault in tuple(self.held_faults):
            fault.release()


def attach(flow: http.HTTPFlow, exchange: Exchange) -> None:
    flow.metadata[_KEY] = exchange


def exchange_of(flow: http.HTTPFlow) -> Exchange | None:
    """The flow's exchange; None if making one has failed."""
    exchange: Exchange | None = flow.metadata.get(_KEY)
    return exchange
