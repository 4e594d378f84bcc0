"""What one would write for stock mitmdump: cohorts by md5, a counter and a histogram for each."""

import hashlib
import time

from mitmproxy import http
from prometheus_client import Counter, Histogram, start_http_server

SHARE = 0.01
REQUESTS = Counter("requests", "Requests", ["cohort", "code"])
SECONDS = Histogram("request_seconds", "Durations", ["cohort"])


class Cohorts:
    """Assigns each request to a cohort and measures its exchange."""

    def running(self) -> None:
        start_http_server(0, addr="127.0.0.1")

    def request(self, flow: http.HTTPFlow) -> None:
        user = flow.request.headers.get("x-user-id", "")
        cohort = cohort_of(user) if user else "bystander"
        flow.metadata["cohort"] = cohort
        if cohort != "bystander":
            flow.request.headers["x-cohort"] = cohort

    def response(self, flow: http.HTTPFlow) -> None:
        assert flow.response is not None
        self._count(flow, f"{flow.response.status_code // 100}xx")

    def error(self, flow: http.HTTPFlow) -> None:
        self._count(flow, "error")

    def _count(self, flow: http.HTTPFlow, code: str) -> None:
        cohort = flow.metadata.get("cohort", "bystander")
        REQUESTS.labels(cohort, code).inc()
        SECONDS.labels(cohort).observe(time.time() - flow.request.timestamp_start)


def cohort_of(user: str) -> str:
    """The first 1 % of the circle is the experiment, the 1 % from its middle on is control."""
    digest = hashlib.md5(f"slow-payments:{user}".encode(), usedforsecurity=False).digest()
    place = int.from_bytes(digest[:4], "little") / 2**32
    if place < SHARE:
        return "experiment"
    return "control" if 0.5 <= place < 0.5 + SHARE else "bystander"


addons = [Cohorts()]
