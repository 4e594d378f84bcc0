"""The admin port: opens it, names its routes, closes it."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from proxy.admin import handlers
from proxy.admin.base import Nowhere, Site
from proxy.admin.events import Events
from proxy.admin.safety import is_loopback
from proxy.config import ConfigError
from proxy.document import Problem
from proxy.sidecar import HostPort, host_port
from proxy.supervisor import Supervisor

ROUTES: tuple[tuple[str, type[RequestHandler]], ...] = (
    (r"/", handlers.Page),
    (r"/metrics", handlers.Metrics),
    (r"/healthz", handlers.Alive),
    (r"/readyz", handlers.Ready),
    (r"/-/reload", handlers.Reload),
    (r"/api/experiments", handlers.Experiments),
    (r"/api/experiments/([^/]+)", handlers.Experiment),
    (r"/api/experiments/([^/]+)/stop", handlers.Stop),
    (r"/api/stop", handlers.Stop),
    (r"/api/resume", handlers.Resume),
    (r"/api/events", Events),
    (r"/openapi.json", handlers.OpenApi),
)

_MOST_BODY = 64 * 1024
_MOST_HEADER = 32 * 1024
_IDLE = 60.0
_GRACE = 5.0


class Admin:
    """A running admin port."""

    def __init__(self, site: Site, sockets: list[socket.socket]) -> None:
        self._site = site
        self.address: HostPort = sockets[0].getsockname()[:2]
        self._http = HTTPServer(
            _application(site),
            max_body_size=_MOST_BODY,
            max_header_size=_MOST_HEADER,
            idle_connection_timeout=_IDLE,
            body_timeout=_IDLE,
        )
        self._http.add_sockets(sockets)

    async def stop(self, grace: float = _GRACE) -> None:
        """Take no more connections, end the streams, let requests under way finish."""
        self._http.stop()
        self._site.closing = True
        for stream in self._site.streams:
            stream.set()
        if self._site.busy:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._site.idle.wait(), grace)
        await self._http.close_all_connections()


async def serve(supervisor: Supervisor, listen: str) -> Admin:
    """Open the admin port. Raises ConfigError off loopback, OSError where it cannot be bound."""
    host, port = host_port(listen)
    if not is_loopback(host):
        said = f"only loopback addresses; at {host} anybody could stop experiments"
        raise ConfigError([Problem("sidecar.yaml", 0, 0, "admin.listen", said)])
    try:
        sockets = bind_sockets(port, host)
    except OSError as e:
        why = os.strerror(e.errno) if e.errno and e.errno > 0 else e.strerror
        raise OSError(f"admin.listen: {listen}: {why}") from e
    return Admin(Site(supervisor, host), sockets)


def _application(site: Site) -> Application:
    settings: dict[str, Any] = {
        "default_handler_class": Nowhere,
        "default_handler_args": {"site": site},
        "log_function": lambda _: None,
    }
    routes = [(pattern, handler, {"site": site}) for pattern, handler in ROUTES]
    return Application(routes, **settings)
