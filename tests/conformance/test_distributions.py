"""What real clients measure is what was asked for, within 10 ms and 5 %."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import quantiles
from typing import Any

import pytest

from counterfault.proxy.faults.latency import Latency
from tests.support import http_clients
from tests.support.open_resources import leaves_nothing
from tests.support.programs import Nginx, Sidecar, user

THREADS = 8
# Seconds that the slowest unfaulted request in a hundred takes on a machine with other work.
BUSY = 0.020
ATTEMPTS = 5
FILES = {
    "values.csv": "\n".join(f"{100 + i}ms" for i in range(201)).encode(),
    "buckets.csv": b"le,count\n0.1,100\n0.2,200\n0.4,400\n+Inf,400\n",
}
CASES: dict[str, Any] = {
    "fixed": "200ms",
    "jitter": {"mean": "200ms", "jitter": "100ms"},
    "percentiles": {"p50": "100ms", "p90": "300ms"},
    "lognormal": {"lognormal": {"median": "150ms", "sigma": 0.3}},
    "values": {"recorded": "values.csv"},
    "buckets": {"recorded": "buckets.csv"},
}


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Sidecar]:
    directory = tmp_path_factory.mktemp("distributions")
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", 'location / { return 200 "hello"; }')
        stack.callback(nginx.stop)
        sidecar = Sidecar(directory / "sidecar", nginx.url, {"engine": engine})
        stack.callback(sidecar.stop)
        for file, content in FILES.items():
            (sidecar.directory / "experiments" / file).write_bytes(content)
        sidecar.start().running(
            faults=[
                {"at": "inbound", "match": {"path": f"/{name}"}, "latency": latency}
                for name, latency in CASES.items()
            ]
        )
        stack.enter_context(leaves_nothing(sidecar))
        yield sidecar


def measured(url: str, count: int) -> dict[str, list[float]]:
    """What so many requests of each cohort took, the two by turns."""
    with http_clients.Client() as client, ThreadPoolExecutor(THREADS) as threads:

        def ask(cohort: str) -> float:
            start = time.monotonic()
            answer = client.get(url, headers={"x-user-id": user(cohort)})
            assert answer.status_code == 200
            return time.monotonic() - start

        cohorts = ("experiment", "control")
        took = list(threads.map(ask, cohorts * count))
    return {cohort: took[number::2] for number, cohort in enumerate(cohorts)}


def measured_when_quiet(url: str, count: int) -> dict[str, list[float]]:
    """What requests took; measured again while control's slowest say that the machine is busy."""
    for _ in range(ATTEMPTS):
        took = measured(url, count)
        if quantiles(took["control"], n=100)[98] <= BUSY:
            break
    return took


@pytest.mark.parametrize(
    ("name", "count"),
    [("fixed", 40), *(pytest.param(name, 400, marks=pytest.mark.slow) for name in CASES)],
)
def test_clients_wait_as_long_as_was_asked(sidecar: Sidecar, name: str, count: int) -> None:
    asked = Latency.model_validate(CASES[name], context={"files": FILES.__getitem__})
    took = measured_when_quiet(f"{sidecar.url}/{name}", count)
    cuts = {cohort: quantiles(each, n=100, method="inclusive") for cohort, each in took.items()}
    # The longest of few say how busy the machine is.
    for share in (0.5, 0.9, 0.99) if count > 100 else (0.5,):
        # Three standard errors of the share that so many requests may have below a quantile.
        chance = 3 * (share * (1 - share) / count) ** 0.5
        low = asked.quantile(max(share - chance, 0.0))
        high = asked.quantile(min(share + chance, 0.9999))
        hit, spared = (cuts[c][round(share * 100) - 1] for c in ("experiment", "control"))
        # What comes on top is what it takes without the fault, on a busy machine more; never less.
        told = (share, low, high, hit, spared)
        assert 0.95 * low - 0.010 <= hit, told
        assert hit - spared <= 1.05 * high + 0.010, told
