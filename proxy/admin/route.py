"""What all routes have in common: checks, headers and errors as RFC 9457 problem details."""

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
from counterfault.proxy.admin.request_origin import foreign_host, foreign_origin
from counterfault.proxy.admin.views import overview
from counterfault.proxy.models.json_model import JsonModel
from counterfault.proxy.models.overview import Overview
from counterfault.proxy.models.problem import Problem
from counterfault.proxy.supervisor.supervisor import Supervisor
from counterfault.proxy.values.addresses import is_loopback
from counterfault.proxy.values.suggestions import unknown

# How old a shared overview may be, in seconds; less than the pause between two events.
FRESH = 0.9

HTML = "text/html; charset=utf-8"
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


@dataclass(slots=True)
class Site:
    """Shared by all routes of one admin port; `streams` are told to end by being set."""

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
        if self._seen is None or now - self._seen_at >= FRESH:
            self._seen, self._seen_at = overview(self.supervisor), now
        return self._seen

    def overview_json(self) -> str:
        """Return the shared overview as JSON."""
        seen = self.overview()
        if self._json_of is not seen:
            self._json, self._json_of = seen.as_json(), seen
        return self._json

    def outdated(self) -> None:
        """Something was done: what is shown from now on has to show it."""
        self._seen_at = float("-inf")

    def page(self) -> str:
        """The page for that overview, for all who look at it."""
        seen = self.overview()
        if self._page_of is not seen:
            timeline = self.supervisor.reader.timeline
            timelines = {e.name: timeline(e.name) for e in seen.experiments}
            paused = {e.name for e in self.supervisor.config.experiments if e.state == "paused"}
            self._page = page.render(seen, timelines, paused, signed_in=self.token is not None)
            self._page_of = seen
        return self._page

    def foreign(self, host: str) -> str | None:
        """What is wrong with a Host header.

        Off loopback people come by names that we do not know; a rebound one has no token.
        """
        return foreign_host(host, self.host) if is_loopback(self.host) else None

    def admits(self, request: HTTPServerRequest) -> bool:
        """Whether a request comes with the token, or with a session that it has opened."""
        if self.token is None:
            return True
        scheme, _, offered = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.token.matches(offered.strip())
        cookie = request.cookies.get(cookie_name(request.host))
        return cookie is not None and self.token.knows(cookie.value)

    def begun(self, route: RequestHandler) -> None:
        self.busy.add(route)
        self.idle.clear()

    def over(self, route: RequestHandler) -> None:
        self.busy.discard(route)
        if not self.busy:
            self.idle.set()


def cookie_name(host: str) -> str:
    """Cookies know no ports, and several sidecars may be looked at on one host."""
    port = host.rpartition(":")[2]
    return f"counterfault-{port}" if port.isdecimal() else "counterfault"


class Route(RequestHandler):
    """A route of the admin port."""

    wants_token = True
    """Whether it may be used by those alone who have the token, if there is one."""

    for_everybody = False
    """Whether it may be asked for under any name, as kubelet and Prometheus do."""

    def initialize(self, site: Site) -> None:
        self.site = site
        self.supervisor = site.supervisor

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", _NOTHING)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        # With no-referrer, a browser would call the origin of the page's own forms `null`.
        self.set_header("Referrer-Policy", "same-origin")

    def prepare(self) -> None:
        self.site.begun(self)
        refused = None
        if not self.for_everybody:
            refused = self.site.foreign(self.request.host)
        if self.request.method not in ("GET", "HEAD"):
            refused = refused or foreign_origin(self.request.headers, self.request.host)
        if refused is not None:
            self.problem(HTTPStatus.FORBIDDEN, refused)
        elif self.wants_token and not self.for_everybody and not self.site.admits(self.request):
            self.set_status(HTTPStatus.UNAUTHORIZED)
            self.set_header("WWW-Authenticate", 'Bearer realm="counterfault"')
            self.unauthorized()

    def unauthorized(self) -> None:
        """The same words whether a token is missing, wrong or old."""
        said = "a token is needed: `Authorization: Bearer TOKEN`, or `counterfault --token-file`"
        self.problem(HTTPStatus.UNAUTHORIZED, said)

    def on_finish(self) -> None:
        self.site.over(self)
        if self.request.method not in ("GET", "HEAD"):
            self.site.outdated()

    def compute_etag(self) -> None:
        """No answer is worth a hash."""

    def text(self, body: str, content_type: str = "text/plain; charset=utf-8") -> None:
        self.set_header("Content-Type", content_type)
        self.finish(body)

    def model(self, body: JsonModel, content_type: str = "application/json") -> None:
        """Answer with a model as JSON."""
        self.text(body.as_json(), content_type)

    def problem(self, status: int, detail: str, errors: Iterable[str] = ()) -> None:
        self.set_status(status)
        title = HTTPStatus(status).phrase
        body = Problem(
            type="about:blank", title=title, status=status, detail=detail, errors=list(errors)
        )
        self.model(body, "application/problem+json")

    def back_to_page(self) -> bool:
        """Whether a browser without script has sent a form of the page; it is led back there."""
        kind = self.request.headers.get("Content-Type", "")
        by_form = kind.startswith("application/x-www-form-urlencoded")
        if by_form and "text/html" in self.request.headers.get("Accept", ""):
            self.redirect("/", status=HTTPStatus.SEE_OTHER)
            return True
        return False

    def unknown_experiment(self, name: str) -> None:
        known = [e.name for e in self.supervisor.config.experiments]
        if known:
            self.problem(HTTPStatus.NOT_FOUND, unknown("experiment", name, known))
        else:
            self.problem(HTTPStatus.NOT_FOUND, "no experiment is configured")

    def write_error(self, status_code: int, **_: Any) -> None:
        """For what tornado refuses, and for our own bugs: those are told to the log alone."""
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
        if value is not None and not isinstance(value, HTTPError):
            self.supervisor.failed("admin", value)

    def _methods(self) -> list[str]:
        return [
            method
            for method in self.SUPPORTED_METHODS
            if getattr(type(self), method.lower()) is not getattr(RequestHandler, method.lower())
        ]


class NotFound(Route):
    """Any path that is no route."""

    def prepare(self) -> None:
        super().prepare()
        if not self._finished:
            said = f"no such route: {self.request.path}; GET /openapi.json lists them"
            self.problem(HTTPStatus.NOT_FOUND, said)
