"""A run of two experiments under load, and a Prometheus that has seen all of it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import Nginx, Sidecar, program, until
from tests.support.prometheus_server import Prometheus

HARM, FINE = "harm", "fine"
_COHORTS = {"experiment": "25%", "control": "25%"}
_SUCCESS = {"name": "success", "at": "inbound", "success_rate": {"drop": "5pp"}}
_ENDED = ("done", "stopped")


@dataclass(frozen=True, slots=True)
class Watched:
    """What there is to look at after the run."""

    sidecar: Sidecar
    prometheus: Prometheus
    page: str
    """/metrics, as it was at the end."""


@contextmanager
def watched_run(directory: Path) -> Iterator[Watched]:
    """The whole run; without users, who cost, the sidecar and Prometheus stay till the end."""
    program("prometheus")  # before anything is started
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", 'location / { return 200 "hello"; }')
        stack.callback(nginx.stop)
        sidecar = Sidecar(directory / "sidecar", nginx.url, {})
        target = sidecar.admin.removeprefix("http://")
        prometheus = Prometheus(directory / "prometheus", target, wait=False)
        stack.callback(prometheus.stop)
        stack.callback(sidecar.stop)
        sidecar.start()
        with _load(sidecar.url):
            until(prometheus.scraped)
            _run(sidecar)
            page = sidecar.metrics()
            # The last states must have been scraped, and the rules evaluated after that.
            until(lambda: len(prometheus.instant(_states(sidecar))) == 2)
            bad = "experiment:counterfault_steady_state_bad:difference"
            until(lambda: prometheus.over_time(bad))
        yield Watched(sidecar, prometheus, page)


@contextmanager
def _load(url: str) -> Iterator[None]:
    """Users by the thousand, 80 requests a second."""
    command = [
        sys.executable,
        "-m",
        "counterfault.proxy.demo.traffic",
        "--target",
        url,
        "--rate",
        "80",
    ]
    users = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        users.terminate()
        users.wait(20)


def _run(sidecar: Sidecar) -> None:
    """One experiment that does harm and one that does not, both to their end."""
    phases = {"baseline": "2s", "duration": "6s", "recovery": "2s", "cohorts": _COHORTS}
    steady = {**phases, "steady_state": [_SUCCESS]}
    sidecar.experiment(FINE, **steady, faults=[{"at": "inbound", "latency": "20ms"}])
    sidecar.experiment(HARM, **steady, faults=[{"at": "inbound", "error": 503}])
    until(lambda: all(sidecar.state(name) in _ENDED for name in (HARM, FINE)), deadline=120)


def _states(sidecar: Sidecar) -> str:
    states = "|".join(sorted({str(sidecar.state(name)) for name in (HARM, FINE)}))
    return f'counterfault_experiment_state{{state=~"{states}"}} == 1'
