"""What the shop's storefront depends on: catalog, recommendations and payments."""

import asyncio
import json
import random
from typing import Any

from tornado.web import RequestHandler

PRODUCTS = 50
SUGGESTED = 4


def product(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"Teapot No. {number}", "cents": 990 + 137 * number}


class Service(RequestHandler):
    """Answers JSON and, as a real service does, takes its time."""

    median = 0.004
    sigma = 0.4
    """The standard deviation of the time's logarithm."""

    async def work(self) -> None:
        await asyncio.sleep(self.median * random.lognormvariate(0, self.sigma))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish({"error": self._reason})


class Health(Service):
    """GET /healthz."""

    def get(self) -> None:
        self.finish({"status": "ok"})


class Catalog(Service):
    """GET /products and /products/ID."""

    async def get(self, number: str | None = None) -> None:
        await self.work()
        if number is None:
            self.finish({"products": [product(i) for i in range(1, 11)]})
        elif 1 <= int(number) <= PRODUCTS:
            self.finish(product(int(number)))
        else:
            self.send_error(404)


class Recommendations(Service):
    """GET /for/USER."""

    median = 0.008
    sigma = 0.5

    async def get(self, user: str) -> None:
        await self.work()
        liked = random.Random(user).sample(range(1, PRODUCTS + 1), SUGGESTED)
        self.finish({"products": [product(i) for i in liked]})


class Payments(Service):
    """POST /charge with `{"cents": N}`."""

    median = 0.015

    async def post(self) -> None:
        await self.work()
        try:
            self.finish({"paid": int(json.loads(self.request.body)["cents"])})
        except (ValueError, TypeError, KeyError):
            self.send_error(400)


STOREFRONT = "storefront"
ROUTES: dict[str, tuple[str, type[Service]]] = {
    "catalog": (r"/products(?:/([0-9]{1,9}))?", Catalog),
    "recommendations": (r"/for/(.+)", Recommendations),
    "payments": (r"/charge", Payments),
}
BACKENDS = tuple(ROUTES)
