"""The three services that the shop's storefront calls: catalog, recommendations, payments."""

import asyncio
import json
import random
from typing import Any

from tornado.web import RequestHandler

PRODUCTS = 50
SUGGESTED = 4


def product(number: int) -> dict[str, Any]:
    """Return a product of the catalog as JSON data."""
    return {"id": number, "name": f"Teapot No. {number}", "cents": 990 + 137 * number}


class Service(RequestHandler):
    """A handler that responds with JSON after a lognormal delay, as a real service would.

    Attributes:
        median: The median delay in seconds.
        sigma: The standard deviation of the delay's natural logarithm.
    """

    median = 0.004
    sigma = 0.4

    async def work(self) -> None:
        """Wait for the time that the service takes."""
        await asyncio.sleep(self.median * random.lognormvariate(0, self.sigma))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Respond to an error with JSON."""
        self.finish({"error": self._reason})


class Health(Service):
    """GET /healthz."""

    def get(self) -> None:
        """Say that the service is up."""
        self.finish({"status": "ok"})


class Catalog(Service):
    """GET /products and /products/ID."""

    async def get(self, number: str | None = None) -> None:
        """Respond with ten products, or with the one that is asked for."""
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
        """Respond with products for a user, the same each time."""
        await self.work()
        liked = random.Random(user).sample(range(1, PRODUCTS + 1), SUGGESTED)
        self.finish({"products": [product(i) for i in liked]})


class Payments(Service):
    """POST /charge with `{"cents": N}`."""

    median = 0.015

    async def post(self) -> None:
        """Take the payment."""
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
