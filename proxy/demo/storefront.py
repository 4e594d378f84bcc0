"""The shop's storefront: what users see, made of what three services answer.

storefront ──▶ catalog            nothing to show without it: 502
           ──▶ recommendations    100 ms at most, then the bestsellers instead
           ──▶ payments           no way round it: 502
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
PATIENCE = 0.1
TIMEOUT = 5.0
# Handed down, so that the next sidecar knows whose request it is.
CONTEXT = ("baggage", "x-user-id")


class Unusable(Exception):
    """A service did not do what it was asked to; `status` is what the user is told."""

    def __init__(self, service: str, why: object, status: int = 502) -> None:
        super().__init__(f"{service}: {why}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Backends:
    """The services by name, and how to ask them."""

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
        """A service's answer to a GET or, with a body, a POST. Raises Unusable."""
        context = {name: headers[name] for name in CONTEXT if name in headers}
        try:
            answer = await self.client.ask(self.urls[service] + path, context, body, timeout)
            found: Any = json.loads(answer.body)
        except (*FAILED, ValueError) as e:
            raise Unusable(service, repr(e)) from e
        if not answer.good:
            raise Unusable(service, answer.status, 404 if answer.status == 404 else 502)
        if not isinstance(found, dict):
            raise Unusable(service, "not what was agreed")
        return found

    async def suggest(self, headers: HTTPHeaders) -> dict[str, Any]:
        """Recommendations or, if they are late or fail, the bestsellers."""
        path = f"/for/{quote(headers.get('x-user-id', 'nobody'), safe='')}"
        try:
            answer = await self.ask("recommendations", path, headers, timeout=PATIENCE)
            return {"from": "recommendations", "products": answer["products"]}
        except (Unusable, KeyError):
            return {"from": "bestsellers", "products": [product(i) for i in BESTSELLERS]}


class Storefront(Service):
    """A page of the shop."""

    def initialize(self, backends: Backends) -> None:
        self.backends = backends

    async def page(self, path: str) -> None:
        """The catalog's answer with recommendations beside it."""
        headers = self.request.headers
        catalog, suggested = await asyncio.gather(
            self.backends.ask("catalog", path, headers), self.backends.suggest(headers)
        )
        self.finish({"catalog": catalog, "recommended": suggested})

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A service without a fallback that fails is told to the user."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, Unusable):
            self.set_status(error.status)
            self.finish({"error": str(error)})
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, Unusable):
            super().log_exception(typ, value, tb)


class Home(Storefront):
    """GET /."""

    async def get(self) -> None:
        await self.page("/products")


class Product(Storefront):
    """GET /product/ID."""

    async def get(self, number: str) -> None:
        await self.page(f"/products/{number}")


class Checkout(Storefront):
    """POST /checkout with `{"product": ID}`."""

    async def post(self) -> None:
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
