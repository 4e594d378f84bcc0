"""The shop's storefront: pages for users, made from the responses of three services.

storefront ──▶ catalog            if it fails, the page is a 502
           ──▶ recommendations    if it fails or takes 100 ms, bestsellers instead
           ──▶ payments           if it fails, the checkout is a 502
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tornado.httputil import HTTPHeaders

from counterfault.proxy.demo.http_client import FAILED, HttpClient
from counterfault.proxy.demo.services import Service, product

BESTSELLERS = (1, 2, 3, 4)
# How long the storefront waits for recommendations, and for the other services, in seconds.
PATIENCE = 0.1
TIMEOUT = 5.0
# Headers that the storefront hands down, so that the sidecar knows which user a call is for.
CONTEXT = ("baggage", "x-user-id")


class Unusable(Exception):
    """A service failed; `status` is the HTTP status that the user gets."""

    def __init__(self, service: str, why: object, status: int = 502) -> None:
        super().__init__(f"{service}: {why}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Backends:
    """The services' URLs by name, and the client to call them with."""

    urls: Mapping[str, str]
    client: HttpClient

    async def ask(
        self,
        service: str,
        path: str,
        headers: HTTPHeaders,
        body: Any = None,
        timeout: float = TIMEOUT,
    ) -> dict[str, Any]:
        """Return a service's JSON response to a GET or, with a body, to a POST.

        Raises:
            Unusable: The service failed, took longer than `timeout` seconds, or sent no object.
        """
        context = {name: headers[name] for name in CONTEXT if name in headers}
        try:
            answer = await self.client.ask(self.urls[service] + path, context, body, timeout)
            found: Any = json.loads(answer.body)
        except (*FAILED, ValueError) as e:
            raise Unusable(service, repr(e)) from e
        if not answer.good:
            raise Unusable(service, answer.status, 404 if answer.status == 404 else 502)
        if not isinstance(found, dict):
            raise Unusable(service, "the response is not a JSON object")
        return found

    async def suggest(self, headers: HTTPHeaders) -> dict[str, Any]:
        """Return recommendations or, if the service is late or fails, the bestsellers."""
        path = f"/for/{quote(headers.get('x-user-id', 'guest'), safe='')}"
        try:
            answer = await self.ask("recommendations", path, headers, timeout=PATIENCE)
            return {"from": "recommendations", "products": answer["products"]}
        except (Unusable, KeyError):
            return {"from": "bestsellers", "products": [product(i) for i in BESTSELLERS]}


class Storefront(Service):
    """A page of the shop."""

    def initialize(self, backends: Backends) -> None:
        """Take the services; tornado calls this for each request."""
        self.backends = backends

    async def page(self, path: str) -> None:
        """Respond with the catalog's data and recommendations."""
        headers = self.request.headers
        catalog, suggested = await asyncio.gather(
            self.backends.ask("catalog", path, headers), self.backends.suggest(headers)
        )
        self.finish({"catalog": catalog, "recommended": suggested})

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say which service failed, with the status that the failure asks for."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, Unusable):
            self.set_status(error.status)
            self.finish({"error": str(error)})
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log an exception unless it says that a service failed: faults are expected here."""
        if not isinstance(value, Unusable):
            super().log_exception(typ, value, tb)


class Home(Storefront):
    """GET /."""

    async def get(self) -> None:
        """Respond with the home page."""
        await self.page("/products")


class Product(Storefront):
    """GET /product/ID."""

    async def get(self, number: str) -> None:
        """Respond with a product's page."""
        await self.page(f"/products/{number}")


class Checkout(Storefront):
    """POST /checkout with `{"product": ID}`."""

    async def post(self) -> None:
        """Buy the product: look up its price, then charge it."""
        try:
            number = int(json.loads(self.request.body)["product"])
        except (ValueError, TypeError, KeyError):
            self.send_error(400)
            return
        ask, headers = self.backends.ask, self.request.headers
        found = await ask("catalog", f"/products/{number}", headers)
        paid = await ask("payments", "/charge", headers, {"cents": found["cents"]})
        self.finish({"product": number, **paid})


ROUTES: dict[str, type[Storefront]] = {
    r"/": Home,
    r"/product/([0-9]{1,9})": Product,
    r"/checkout": Checkout,
}
