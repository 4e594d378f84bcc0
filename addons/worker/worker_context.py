"""What all connections of a worker share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.options import Options

    from counterfault.addons.mitm.hook_dispatch import Table
    from counterfault.addons.pipeline.exchange import Exchange, MessageFaults
    from counterfault.addons.pipeline.upstreams import Upstreams
    from counterfault.addons.state import WorkerState
    from counterfault.addons.tcp.enrolment import TcpContext
    from counterfault.addons.worker.accepted_client import AcceptedClient


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The parts of a worker that its connections use; `wiring` puts them together."""

    state: WorkerState
    options: Options
    """mitmproxy's options, for its layers."""
    hooks: Callable[[AcceptedClient], Table]
    """Returns the handlers of a client's hooks."""
    message_faults: MessageFaults
    tcp: TcpContext
    ended: Callable[[Exchange, int | None], None]
    """Called with each exchange that has ended and its status, or None without an answer."""
    upstreams: Upstreams
    clients: set[AcceptedClient] = field(default_factory=set)
    """Every open connection, of closed listeners too."""
