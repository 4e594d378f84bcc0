"""A real Prometheus on a free port, and what Grafana would ask it."""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import free_port, program, until

DEPLOY = Path(__file__).parents[2] / "deploy"
SHIPPED = DEPLOY / "prometheus" / "prometheus.yml"
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class Prometheus:
    """Scrapes one target every second, with the shipped rules; asks for the time it has lived.

    The first scrape is five seconds after the start. Without `wait`, the target need not be there.
    """

    def __init__(
        self, directory: Path, target: str, shipped: Path = SHIPPED, *, wait: bool = True
    ) -> None:
        directory.mkdir(parents=True)
        config = directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(_pointed(shipped, target)))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.began = time.time()
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ]
        )
        if wait:
            until(self.scraped)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def get(self, path: str, **query: Any) -> Any:
        """The data of an API's answer."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def instant(self, expr: str) -> list[Any]:
        """The series that an expression has now, with a value that is a number."""
        found = self.get("query", query=expr)["result"]
        return [series for series in found if series["value"][1] != "NaN"]

    def over_time(self, expr: str) -> list[Any]:
        """The series that an expression has had at any time, with a value that is a number."""
        step = {"start": self.began, "end": time.time(), "step": 1}
        found = self.get("query_range", query=expr, **step)["result"]
        return [s for s in found if any(value != "NaN" for _, value in s["values"])]

    def values(self, label_values: str, variables: dict[str, str]) -> list[Any]:
        """What Grafana offers for a variable's `label_values(SERIES, LABEL)`."""
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", label_values)
        assert asked, label_values
        series = substituted(asked[1], variables)
        found: list[Any] = self.get(f"label/{asked[2]}/values", **{"match[]": series})
        return found

    def scraped(self) -> bool:
        """Whether the target has been scraped."""
        assert self._process.poll() is None, "prometheus has ended"
        try:
            return bool(self.instant("up == 1"))
        except OSError:
            return False


def _pointed(shipped: Path, target: str) -> dict[str, Any]:
    """A shipped configuration that scrapes one target every second."""
    config: dict[str, Any] = yaml.safe_load(shipped.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(shipped.parent / files) for files in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    return config


def substituted(expr: str, variables: dict[str, str]) -> str:
    """An expression with Grafana's variables replaced; an unknown one is a KeyError."""
    return _VARIABLE.sub(lambda found: variables[found[1]], expr)
