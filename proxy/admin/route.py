"""The base of all routes: checks, headers, and errors as RFC 9457 problem details."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from counterfault.proxy.admin import page
from counterfault.proxy.admin.access_token import Token
from counterfault.proxy.admin.request_origin import host_problem, origin_problem
from counterfault.proxy.admin.views import overview
from counterfault.proxy.models.json_model import JsonModel
from counterfault.proxy.models.overview import Overview
from counterfault.proxy.models.problem import Problem
from counterfault.proxy.supervisor.supervisor import Supervisor
from counterfault.proxy.values.addresses import is_loopback
from counterfault.proxy.values.suggestions import unknown

# The age in seconds up to which an overview is shared; less than the time between two events.
MAX_AGE = 0.9

HTML = "text/html; charset=utf-8"
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


@dataclass(slots=True)
class Site:
    """What all routes of one admin port share.

    Attributes:
        supervisor: What the routes show and act on.
        host: The configured address of the admin port.
        token: The token that requests need; None if they need none.
        streams: One event for each open stream; setting it ends the stream.
        busy: The requests under way.
        idle: Is set while no request is under way.
        closing: Whether the server is about to stop.
    """

    supervisor: Supervisor
    host: str
    token: Token | None = None
    streams: set[asyncio.Event] = field(default_factory=set)
    busy: set[RequestHandler] = field(default_factory=set)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False
    _seen: Overview | None = None
    _seen_at: float = float("-inf")
    _json: str = ""
    _json_of: Overview | None = None
    _page: str = ""
    _page_of: Overview | None = None

    def overview(self) -> Overview:
        """Return an overview that is less than a second old.

        All streams and pages share it, so that many of them cost the supervisor little.
        """
        now = time.monotonic()
        if self._seen is None or now - self._seen_at >= MAX_AGE:
            self._seen, self._seen_at = overview(self.supervisor), now
        return self._seen

    def overview_json(self) -> str:
        """Return the shared overview as JSON."""
        seen = self.overview()
        if self._json_of is not seen:
            self._json, self._json_of = seen.as_json(), seen
        return self._json

    def discard_overview(self) -> None:
        """Make the next overview a new one: a request has changed something."""
        self._seen_at = float("-inf")

    def page(self) -> str:
        """Return the page of the shared overview."""
        seen = self.overview()
        if self._page_of is not seen:
            timeline = self.supervisor.reader.timeline
            timelines = {e.name: timeline(e.name) for e in seen.experiments}
            paused = {e.name for e in self.supervisor.config.experiments if e.state == "paused"}
            self._page = page.render(seen, timelines, paused, signed_in=self.token is not None)
            self._page_of = seen
        return self._page

    def host_problem(self, host: str) -> str | None:
        """Return what is wrong with a Host header; None if nothing is.

        Only a port on loopback is checked. Another one has names that are not configured, and
        needs a token, which a page with a rebound name does not have.
        """
        return host_problem(host, self.host) if is_loopback(self.host) else None

    def authorizes(self, request: HTTPServerRequest) -> bool:
        """Return whether a request has the token, or a session that the token opened."""
        if self.token is None:
            return True
        scheme, _, offered = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.token.matches(offered.strip())
        cookie = request.cookies.get(cookie_name(request.host))
        return cookie is not None and self.token.is_session(cookie.value)

    def request_started(self, route: RequestHandler) -> None:
        """Remember a request until it is finished."""
        self.busy.add(route)
        self.idle.clear()

    def request_finished(self, route: RequestHandler) -> None:
        """Forget a request."""
        self.busy.discard(route)
        if not self.busy:
            self.idle.set()


def cookie_name(host: str) -> str:
    """Return the name of the session cookie for a Host header.

    The port is part of the name: browsers send a cookie to all ports of a host, and a host may
    have several sidecars.
    """
    port = host.rpartition(":")[2]
    return f"counterfault-{port}" if port.isdecimal() else "counterfault"


class Route(RequestHandler):
    """A route of the admin port."""

    needs_token = True
    """Whether a request needs the token, if one is configured."""

    is_public = False
    """Whether a request may have any Host header and no token, as those of probes do."""

    def initialize(self, site: Site) -> None:
        """Take the arguments of the routing table; tornado calls this for each request."""
        self.site = site
        self.supervisor = site.supervisor

    def set_default_headers(self) -> None:
        """Set the headers of every answer; tornado calls this first."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", _NOTHING)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        # With no-referrer, a browser would send `Origin: null` with the page's own forms.
        self.set_header("Referrer-Policy", "same-origin")

    def prepare(self) -> None:
        """Refuse foreign hosts and origins, and requests that lack the token."""
        self.site.request_started(self)
        refused = None
        if not self.is_public:
            refused = self.site.host_problem(self.request.host)
        if self.request.method not in ("GET", "HEAD"):
            refused = refused or origin_problem(self.request.headers, self.request.host)
        if refused is not None:
            self.problem(HTTPStatus.FORBIDDEN, refused)
        elif self.needs_token and not self.is_public and not self.site.authorizes(self.request):
            self.set_status(HTTPStatus.UNAUTHORIZED)
            self.set_header("WWW-Authenticate", 'Bearer realm="counterfault"')
            self.unauthorized()

    def unauthorized(self) -> None:
        """Answer a request without a valid token; the text does not say what is wrong with it."""
        said = "a token is needed: `Authorization: Bearer TOKEN`, or `counterfault --token-file`"
        self.problem(HTTPStatus.UNAUTHORIZED, said)

    def on_finish(self) -> None:
        """Note the end of the request; tornado calls this after the answer."""
        self.site.request_finished(self)
        if self.request.method not in ("GET", "HEAD"):
            self.site.discard_overview()

    def compute_etag(self) -> None:
        """Leave out ETag, which tornado would compute for each answer."""

    def text(self, body: str, content_type: str = "text/plain; charset=utf-8") -> None:
        """Answer with a text."""
        self.set_header("Content-Type", content_type)
        self.finish(body)

    def model(self, body: JsonModel, content_type: str = "application/json") -> None:
        """Answer with a model as JSON."""
        self.text(body.as_json(), content_type)

    def problem(self, status: int, detail: str, errors: Iterable[str] = ()) -> None:
        """Answer with problem details (RFC 9457)."""
        self.set_status(status)
        title = HTTPStatus(status).phrase
        body = Problem(
            type="about:blank", title=title, status=status, detail=detail, errors=list(errors)
        )
        self.model(body, "application/problem+json")

    def back_to_page(self) -> bool:
        """Redirect a browser without scripts, which has sent a form, to the page.

        Returns:
            Whether this was such a request.
        """
        kind = self.request.headers.get("Content-Type", "")
        by_form = kind.startswith("application/x-www-form-urlencoded")
        if by_form and "text/html" in self.request.headers.get("Accept", ""):
            self.redirect("/", status=HTTPStatus.SEE_OTHER)
            return True
        return False

    def unknown_experiment(self, name: str) -> None:
        """Answer that there is no such experiment, and list the known ones."""
        known = [e.name for e in self.supervisor.config.experiments]
        if known:
            self.problem(HTTPStatus.NOT_FOUND, unknown("experiment", name, known))
        else:
            self.problem(HTTPStatus.NOT_FOUND, "no experiment is configured")

    def write_error(self, status_code: int, **_: Any) -> None:
        """Answer what tornado refuses, and errors of our own, whose details only the log has."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(self._methods())
            self.set_header("Allow", allowed)
            self.problem(status_code, f"{self.request.method} does nothing here; try {allowed}")
        elif status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.problem(status_code, "an error of our own, counted and logged")
        else:
            self.problem(status_code, HTTPStatus(status_code).description)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Count and log errors of our own; tornado calls this for every exception."""
        if value is not None and not isinstance(value, HTTPError):
            self.supervisor.failed("admin", value)

    def _methods(self) -> list[str]:
        return [
            method
            for method in self.SUPPORTED_METHODS
            if getattr(type(self), method.lower()) is not getattr(RequestHandler, method.lower())
        ]


class NotFound(Route):
    """Answers every path that is not a route."""

    def prepare(self) -> None:
        """Answer before tornado looks for a method."""
        super().prepare()
        if not self._finished:
            said = f"no such route: {self.request.path}; GET /openapi.json lists them"
            self.problem(HTTPStatus.NOT_FOUND, said)
