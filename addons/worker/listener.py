"""A worker's side of a listener: a listening socket that accepts clients."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmproxy.proxy import events
from OpenSSL import SSL

from counterfault.addons.transport import tls
from counterfault.addons.transport.certificate_issuer import CertificateIssuer
from counterfault.addons.transport.socket_protocol import SocketProtocol
from counterfault.addons.worker.accepted_client import AcceptedClient
from counterfault.addons.worker.worker_context import WorkerContext
from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.plan import Plan, Route

_BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """What a plan says about one listener; the next plan brings others."""

    route: Route
    tls: SSL.Context | None = None
    """Serves the listener's certificate; None where it speaks cleartext."""
    ca: Path | None = None
    """Verifies https upstreams; None: the system's certificates do."""
    issuer: CertificateIssuer | None = None
    """Makes certificates for intercepted hosts."""


def settings_of(
    config: Config, plan: Plan, issuer: CertificateIssuer | None
) -> dict[str, ListenerSettings]:
    """Return the settings of all listeners by name.

    Raises OSError or SSL.Error if a file of the configuration cannot be used any more.
    """
    settings = {}
    for name, listener in config.sidecar.listeners.items():
        context = None
        if listener.tls is not None:
            cert, key = config.directory / listener.tls.cert, config.directory / listener.tls.key
            context = tls.listener_context(cert, key)
        ca = config.directory / listener.ca if listener.ca else None
        settings[name] = ListenerSettings(plan.routes[name], context, ca, issuer)
    return settings


class Listener:
    """A listening socket of this worker."""

    def __init__(self, context: WorkerContext, settings: ListenerSettings) -> None:
        """Prepare; `start` begins to accept.

        Args:
            context: What all connections of the worker share.
            settings: For clients from now on; the connections that are open read them too.
        """
        self.settings = settings
        self._context = context
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Accept clients on a bound socket, which the event loop closes in the end."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SocketProtocol(self._accept), sock=sock, backlog=_BACKLOG
        )

    def close(self, sock: socket.socket) -> Coroutine[Any, Any, None]:
        """Stop accepting; clients stay connected.

        `sock` is another descriptor of the listening socket, and is closed. Returns a coroutine
        that serves the connections which are in the accept queue already.
        """
        if self._server is not None:
            self._server.close()
        waiting = list(_accept_all(sock))
        sock.close()
        return self._serve(waiting)

    async def _serve(self, accepted: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for each in accepted:
            await loop.connect_accepted_socket(lambda: SocketProtocol(self._accept), each)

    def _accept(self, protocol: SocketProtocol) -> None:
        clients, state = self._context.clients, self._context.state
        if protocol.transport.get_extra_info("peername") is None:
            protocol.transport.abort()  # the client has reset the connection already
            return
        if len(clients) >= state.plan.limits.connections // state.workers:
            protocol.transport.abort()
            return
        try:
            client = AcceptedClient(self, self._context, protocol)
        except Exception as e:
            state.failed("protocol", e)
            protocol.transport.abort()
            return
        clients.add(client)
        client.feed(events.Start())


def _accept_all(sock: socket.socket) -> Iterator[socket.socket]:
    """Accept all connections in the queue of a listening socket."""
    sock.setblocking(False)
    with suppress(OSError):
        while True:
            client, _ = sock.accept()
            client.setblocking(False)
            yield client
