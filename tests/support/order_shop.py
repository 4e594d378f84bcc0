"""A shop that counts orders by its customers' tag: the process, its Prometheus, its customers."""

import http.client
import json
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry, Counter, generate_latest
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler

from tests.support.programs import free_port, program, until

# A rate is compared by user: with few of them the cohorts differ by chance.
CUSTOMERS = 10_000
REPLICATES = 16


class _Order(RequestHandler):
    def initialize(self, orders: Counter, known: set[str]) -> None:
        self._orders, self._known = orders, known

    def get(self) -> None:
        tag = self.request.headers.get("x-counterfault")
        if tag is not None:
            experiment, cohort, replicate = tag.split(".")
            self._meet(experiment)
            self._orders.labels(experiment, cohort, int(replicate) % REPLICATES).inc()
        self.write("thank you")

    def _meet(self, experiment: str) -> None:
        """A count that begins with its first event would begin too late, or never."""
        if experiment not in self._known:
            self._known.add(experiment)
            for cohort in ("control", "experiment"):
                for replicate in range(REPLICATES):
                    self._orders.labels(experiment, cohort, replicate)


class _Metrics(RequestHandler):
    def initialize(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def get(self) -> None:
        self.write(generate_latest(self._registry))


def _serve(port: int) -> None:
    registry = CollectorRegistry()
    labels = ("experiment", "cohort", "replicate")
    orders = Counter("shop_orders", "Orders.", labels, registry=registry)
    routes: list[Any] = [
        ("/order", _Order, {"orders": orders, "known": set()}),
        ("/metrics", _Metrics, {"registry": registry}),
    ]
    Application(routes, log_function=lambda handler: None).listen(port, "127.0.0.1")
    IOLoop.current().start()


class OrderShop:
    """The shop as a process."""

    def __init__(self) -> None:
        port = free_port()
        self.target = f"127.0.0.1:{port}"
        self.url = f"http://{self.target}"
        self._process = subprocess.Popen([sys.executable, __file__, str(port)])
        until(lambda: _answers(f"{self.url}/metrics"))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class Prometheus:
    """A real Prometheus that scrapes one target every second."""

    def __init__(self, directory: Path, target: str) -> None:
        directory.mkdir()
        config = directory / "prometheus.yml"
        scraped = {"job_name": "shop", "static_configs": [{"targets": [target]}]}
        config.write_text(
            yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]})
        )
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ]
        )
        until(lambda: self.instant("up == 1"))

    def stop(self) -> None:
        """At once and without a word, as in an accident; not twice."""
        self._process.kill()
        self._process.wait(10)

    def instant(self, query: str) -> Any:
        """The series that a query has now; none while there is no answer."""
        asked = urllib.parse.urlencode({"query": query})
        url = f"{self.url}/api/v1/query?{asked}"
        with suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]
        return []


class Customers:
    """Users who order one after the other, again and again, whatever they are answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._order, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def _order(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        number = 0
        while not self._stop.wait(0.003):
            number += 1
            user = f"user-{number % CUSTOMERS}"
            try:
                connection.request("GET", "/order", headers={"x-user-id": user})
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
        connection.close()


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
