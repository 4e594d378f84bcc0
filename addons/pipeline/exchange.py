"""One request and its response, as the stages of the pipeline see it."""

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
from counterfault.proxy.measurement.keys import OpenKey
from counterfault.proxy.values.request import Request

if TYPE_CHECKING:
    from counterfault.addons.faults.active_fault import ActiveFault

_KEY = "counterfault"


class MessageFaults(Protocol):
    """Draws faults for single messages of a WebSocket."""

    clock: Callable[[], float]
    """Returns monotonic seconds."""

    def message_rules(self, exchange: Exchange) -> tuple[EachMessage, ...]:
        """Return the rules of the present plan for the messages of a WebSocket."""

    def draw(self, exchange: Exchange, each: EachMessage) -> ActiveFault | None:
        """Draw a fault for one message and begin it; the caller has to release it.

        None if none is drawn, or if it may not happen.
        """


class Peer(Protocol):
    """The client connection, as the layers and the pipeline see it."""

    route: Route
    """Its listener's route when the client connected; the plan may have another by now."""
    upstreams: Upstreams
    exchanges: set[Exchange]
    """The exchanges that have not ended."""
    message_faults: MessageFaults

    @property
    def limits(self) -> Limits:
        """The limits of the present plan."""

    def intercepts(self, host: str) -> bool:
        """Return whether the TLS inside a CONNECT tunnel to this host is to be decrypted."""

    def run_inline(self, hook: commands.StartHook) -> bool:
        """Run a hook's handlers. Returns False if the layer has to yield it: a handler waits."""

    def reset(self) -> None:
        """Cut the connection with a TCP RST."""


@dataclass(eq=False, slots=True)
class Exchange:
    """Begins when the request's head is there, and ends once, with a response or without."""

    peer: Peer
    route: Route
    request: Request
    started: float
    """Monotonic seconds."""
    nodes: tuple[str, ...]
    """URLs of the upstreams to try, in this order."""
    unit: bytes | None = None
    tag: Enrolment | None = None
    """The enrolment that a trusted peer has tagged it with."""
    enrolment: Enrolment | None = None
    measured: tuple[Measured, ...] = ()
    open_key: OpenKey | None = None
    """The key under which it is counted as under way; None for a bystander."""
    decision: Decision = NOTHING
    replaced: bool = False
    """Whether an injected response takes the place of the upstream's."""
    status: int | None = None
    """The status that the client was sent; None before the response's head is sent."""
    over: bool = False
    held_faults: set[HeldFault] = field(default_factory=set)
    pending: list[Injection] = field(default_factory=list)
    """Faults that were drawn and not tried yet."""
    effects: ExchangeEffects | None = None
    message_rules: tuple[Plan, tuple[EachMessage, ...]] | None = None
    """The rules for a WebSocket's messages, and the plan that they are from."""

    @property
    def experiment(self) -> str:
        """The name of its experiment; empty for a bystander."""
        return self.enrolment.experiment if self.enrolment else ""

    @property
    def cohort(self) -> Cohort:
        """Its cohort."""
        return self.enrolment.cohort if self.enrolment else Cohort.BYSTANDER

    def release_faults(self) -> None:
        """Release all faults that hold it, once its client has left or it has ended."""
        for fault in tuple(self.held_faults):
            fault.release()


def attach(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Let `exchange_of` find the exchange by its flow."""
    flow.metadata[_KEY] = exchange


def exchange_of(flow: http.HTTPFlow) -> Exchange | None:
    """Return the exchange of a flow; None if an internal error has prevented it."""
    exchange: Exchange | None = flow.metadata.get(_KEY)
    return exchange
