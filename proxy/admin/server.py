"""The admin port: its routes, and how it is opened and closed."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from counterfault.proxy.admin import routes
from counterfault.proxy.admin.access_token import Token
from counterfault.proxy.admin.events import Events
from counterfault.proxy.admin.login import Login, Logout
from counterfault.proxy.admin.route import NotFound, Site
from counterfault.proxy.supervisor.supervisor import Supervisor
from counterfault.proxy.values.addresses import HostPort, host_port

type Routes = tuple[tuple[str, type[RequestHandler]], ...]

PROBES: Routes = (
    (r"/metrics", routes.Metrics),
    (r"/healthz", routes.Alive),
    (r"/readyz", routes.Ready),
)
ROUTES: Routes = (
    (r"/", routes.Page),
    (r"/page/([^/]+)", routes.Asset),
    (r"/login", Login),
    (r"/logout", Logout),
    *PROBES,
    (r"/-/reload", routes.Reload),
    (r"/api/experiments", routes.Experiments),
    (r"/api/experiments/([^/]+)", routes.Experiment),
    (r"/api/experiments/([^/]+)/report", routes.Report),
    (r"/api/experiments/([^/]+)/series", routes.Series),
    (r"/api/experiments/([^/]+)/stop", routes.Stop),
    (r"/api/stop", routes.Stop),
    (r"/api/resume", routes.Resume),
    (r"/api/events", Events),
    (r"/openapi.json", routes.OpenApi),
)

# The largest request body and head, in bytes.
_MAX_BODY = 64 * 1024
_MAX_HEADER = 32 * 1024
# Seconds after which an idle connection is closed.
_IDLE_TIMEOUT = 60.0
# Seconds that requests under way get to finish when the server stops.
_GRACE_PERIOD = 5.0


class AdminServer:
    """The running servers: that of the admin port and, if configured, that of the probes."""

    def __init__(self, site: Site, opened: list[tuple[Routes, list[socket.socket]]]) -> None:
        """Serve the routes of each table on its sockets; `addresses` says where."""
        self._site = site
        self.addresses: list[HostPort] = [s[0].getsockname()[:2] for _, s in opened]
        self._servers = [_server(site, table, sockets) for table, sockets in opened]

    @property
    def address(self) -> HostPort:
        """Where the admin port listens."""
        return self.addresses[0]

    async def stop(self, grace: float = _GRACE_PERIOD) -> None:
        """Take no more connections, end the streams, and wait for requests under way.

        After `grace` seconds their connections are closed.
        """
        for server in self._servers:
            server.stop()
        self._site.closing = True
        for stream in self._site.streams:
            stream.set()
        if self._site.busy:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._site.idle.wait(), grace)
        for server in self._servers:
            await server.close_all_connections()


def _server(site: Site, table: Routes, sockets: list[socket.socket]) -> HTTPServer:
    server = HTTPServer(
        _application(site, table),
        max_body_size=_MAX_BODY,
        max_header_size=_MAX_HEADER,
        idle_connection_timeout=_IDLE_TIMEOUT,
        body_timeout=_IDLE_TIMEOUT,
    )
    server.add_sockets(sockets)
    return server


async def serve(supervisor: Supervisor) -> AdminServer:
    """Open the admin port. Raises OSError if it cannot be bound or the token cannot be read."""
    settings = supervisor.config.sidecar.admin
    site = Site(supervisor, host_port(settings.listen)[0], _token(supervisor))
    opened = [(ROUTES, _bind("admin.listen", settings.listen))]
    if settings.metrics is not None:
        try:
            opened.append((PROBES, _bind("admin.metrics", settings.metrics)))
        except OSError:
            _close(opened)
            raise
    return AdminServer(site, opened)


def _token(supervisor: Supervisor) -> Token | None:
    name = supervisor.config.sidecar.admin.token_file
    if name is None:
        return None
    try:
        return Token(supervisor.config.directory / name, supervisor.failed)
    except ValueError as e:
        raise OSError(f"admin.token_file: cannot use {name}: {e}") from e


def _bind(key: str, listen: str) -> list[socket.socket]:
    host, port = host_port(listen)
    try:
        return bind_sockets(port, host)
    except OSError as e:
        why = os.strerror(e.errno) if e.errno and e.errno > 0 else e.strerror
        raise OSError(f"{key}: {listen}: {why}") from e


def _close(opened: list[tuple[Routes, list[socket.socket]]]) -> None:
    for _, sockets in opened:
        for sock in sockets:
            sock.close()


def _application(site: Site, table: Routes) -> Application:
    settings: dict[str, Any] = {
        "default_handler_class": NotFound,
        "default_handler_args": {"site": site},
        "log_function": lambda _: None,
    }
    return Application([(path, handler, {"site": site}) for path, handler in table], **settings)
