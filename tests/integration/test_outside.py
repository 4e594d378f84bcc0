"""Business metrics from a real Prometheus that scrapes a real shop behind a real sidecar."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.order_shop import Customers, OrderShop, Prometheus
from tests.support.programs import MakeSidecar, Sidecar, program, until

# Each takes as long as a real Prometheus takes to be asked often enough.
pytestmark = pytest.mark.slow

type MakeWorld = Callable[..., tuple[Sidecar, Prometheus]]

COUNTS = 'shop_orders_total{experiment="$experiment", cohort="$cohort"}'
LEVEL = 'sum(rate(shop_orders_total{experiment="$experiment", cohort="$cohort"}[5s]))'
ERROR = [{"at": "inbound", "error": 503}]
NOTHING_WORSE = [{"at": "inbound", "latency": "1ms"}]
SOON = 100.0


@pytest.fixture
def make_world(tmp_path: Path, make_sidecar: MakeSidecar, engine: str) -> Iterator[MakeWorld]:
    """Makes a shop with its customers, a sidecar with these experiments, and a Prometheus."""
    program("prometheus")
    started: list[OrderShop | Prometheus | Customers] = []

    def make(**experiments: dict[str, Any]) -> tuple[Sidecar, Prometheus]:
        shop = OrderShop()
        started.append(shop)
        prometheus = Prometheus(tmp_path / "prometheus", shop.target)
        started.append(prometheus)
        sidecar = make_sidecar(shop.url, engine=engine, prometheus={"url": prometheus.url})
        share = f"{int(50 / len(experiments))}%"
        for name, said in experiments.items():
            cohorts = {"experiment": share, "control": share}
            sidecar.experiment(name, cohorts=cohorts, duration="10m", **said)
        sidecar.start()
        started.append(Customers(sidecar.port))
        return sidecar, prometheus

    yield make
    for one in reversed(started):
        one.stop()


def orders(query: str, drop: str, *, required: bool = False) -> list[dict[str, Any]]:
    said = {"query": query, "drop": drop, "required": required}
    return [{"name": "orders", "prometheus": said}]


def seen(sidecar: Sidecar, name: str) -> Any:
    """What the sidecar says of an experiment."""
    return sidecar.get(f"/api/experiments/{name}")


def metric(sidecar: Sidecar, name: str) -> Any:
    return seen(sidecar, name)["metrics"][0]


def test_a_business_metric_refutes_a_hypothesis(make_world: MakeWorld) -> None:
    sidecar, _ = make_world(hurts={"faults": ERROR, "steady_state": orders(COUNTS, "20%")})
    until(lambda: sidecar.state("hurts") == "stopped", SOON)
    hurts = seen(sidecar, "hurts")
    assert hurts["verdict"]["result"] == "refuted"
    assert hurts["verdict"]["reason"].startswith("orders: 100 % fewer events (")
    (told,) = hurts["metrics"]
    assert not told["plain"]
    assert told["harmed"]
    assert told["control"]["events"] > 30
    assert sidecar.metric("counterfault_internal_errors_total") == 0


@pytest.mark.timeout(240)
def test_a_business_metric_holds_a_hypothesis_and_a_plain_one_only_stops_it(
    make_world: MakeWorld,
) -> None:
    sidecar, _ = make_world(
        harmless={"faults": NOTHING_WORSE, "steady_state": orders(COUNTS, "50%")},
        plain={"faults": ERROR, "steady_state": orders(LEVEL, "20%")},
    )

    until(lambda: seen(sidecar, "harmless")["verdict"]["result"] == "held", SOON)
    harmless = seen(sidecar, "harmless")
    assert harmless["state"] == "running"
    assert "events (" in harmless["verdict"]["reason"]
    assert harmless["metrics"][0]["upper"] < 0.5
    assert 8 <= harmless["metrics"][0]["clusters"] <= 16

    until(lambda: sidecar.state("plain") == "stopped", SOON)
    plain = seen(sidecar, "plain")
    assert plain["verdict"]["result"] == "refuted"
    assert "a plain threshold, not a test; 20 % allowed" in plain["verdict"]["reason"]
    assert plain["metrics"][0]["plain"]
    assert plain["metrics"][0]["lower"] is None
    assert plain["metrics"][0]["control"]["level"] > 0
    assert sidecar.metric("counterfault_internal_errors_total") == 0


@pytest.mark.timeout(240)
def test_without_its_prometheus_a_metric_has_no_data(make_world: MakeWorld) -> None:
    both = {"faults": NOTHING_WORSE, "baseline": "30s"}  # data take a while to come
    sidecar, prometheus = make_world(
        needed={**both, "steady_state": orders(COUNTS, "50%", required=True)},
        wanted={**both, "steady_state": orders(COUNTS, "50%")},
    )
    until(lambda: seen(sidecar, "needed")["verdict"]["result"] == "held", SOON)
    until(lambda: seen(sidecar, "wanted")["verdict"]["result"] == "held", SOON)
    prometheus.stop()

    until(lambda: sidecar.state("needed") == "stopped", SOON)
    needed = seen(sidecar, "needed")
    assert needed["reason"] == "a required metric had no data"
    assert needed["verdict"]["result"] == "inconclusive"
    assert "orders: no data since 20" in needed["verdict"]["reason"]

    until(lambda: metric(sidecar, "wanted")["no_data"], SOON)
    wanted = seen(sidecar, "wanted")
    assert wanted["state"] == "running"
    assert wanted["verdict"]["result"] == "inconclusive"
    assert "orders: no data since 20" in wanted["verdict"]["reason"]
    # Said once for each experiment, however often it was asked.
    assert sidecar.log.read_text().count("no data for orders: [Errno 111]") == 2
    assert sidecar.metric("counterfault_internal_errors_total") == 0
