"""The dashboards ask for what the sidecar exports, and get something."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana import build
from tests.support.prometheus_server import DEPLOY, substituted
from tests.support.watched_run import FINE, HARM, Watched

GRAFANA = DEPLOY / "grafana"
BOARDS = {path.name: json.loads(path.read_text()) for path in build.DIRECTORY.glob("*.json")}

pytestmark = pytest.mark.timeout(300)  # the first test waits for a whole run


def _variables(experiment: str) -> dict[str, str]:
    """What Grafana would put in; the intervals suit a scrape each second."""
    chosen = {"service": "shop", "listener": "inbound", "metric": "success", "alpha": "0.05"}
    times = {"__rate_interval": "4s", "__range": "1m"}
    return {**chosen, **times, "experiment": experiment, "instance": ".*"}


def _queries() -> Iterator[Any]:
    """Board, expression and whether it is about this moment only."""
    for board, content in BOARDS.items():
        for panel in content["panels"]:
            for target in panel.get("targets", ()):
                name = f"{board}: {panel['title']} {target['refId']}"
                yield pytest.param(target["expr"], bool(target.get("instant")), id=name)
        for annotation in content["annotations"].get("list", ()):
            yield pytest.param(annotation["expr"], False, id=f"{board}: {annotation['name']}")


def _choices() -> Iterator[Any]:
    for board, content in BOARDS.items():
        for variable in content["templating"]["list"]:
            if variable["type"] == "query":
                yield pytest.param(variable["query"], id=f"{board}: ${variable['name']}")


@pytest.mark.parametrize(("expr", "instant"), _queries())
def test_every_query_returns_something(watched: Watched, expr: str, instant: bool) -> None:
    ask = watched.prometheus.instant if instant else watched.prometheus.over_time
    found = [ask(substituted(expr, _variables(name))) for name in (HARM, FINE)]
    assert any(found), expr


@pytest.mark.parametrize("query", _choices())
def test_every_variable_has_values(watched: Watched, query: str) -> None:
    assert watched.prometheus.values(query, _variables(FINE))


@pytest.mark.parametrize("board", BOARDS)
def test_every_metric_is_exported(watched: Watched, board: str) -> None:
    families = text_string_to_metric_families(watched.page)
    exported = {sample.name for family in families for sample in family.samples}
    named = set(re.findall(r"\bcounterfault_\w+", json.dumps(BOARDS[board])))
    assert named
    assert named <= exported


@pytest.mark.parametrize("board", build.BOARDS)
def test_the_committed_dashboards_are_current(board: str) -> None:
    committed = (build.DIRECTORY / board).read_text()
    assert committed == build.text(build.BOARDS[board]()), "run `make generate`"
    assert set(BOARDS) == set(build.BOARDS)


@pytest.mark.parametrize("board", BOARDS)
def test_every_query_uses_the_chosen_data_source(board: str) -> None:
    content = BOARDS[board]
    sources = [p["datasource"]["uid"] for p in content["panels"] if p["type"] != "row"]
    asked = content["templating"]["list"] + content["annotations"].get("list", [])
    sources += [a["datasource"]["uid"] for a in asked if "datasource" in a]
    assert set(sources) == {"${datasource}"}


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    for content in BOARDS.values():
        numbers = [panel["id"] for panel in content["panels"]]
        assert len(set(numbers)) == len(numbers)
        cells = [cell for panel in content["panels"] for cell in _cells(panel["gridPos"])]
        assert len(set(cells)) == len(cells)


def _cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        assert x < 24
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


@pytest.mark.parametrize(
    "file", sorted(GRAFANA.glob("provisioning/*/*.yaml")), ids=lambda p: p.name
)
def test_the_provisioning_files_are_yaml_of_grafanas_first_version(file: Path) -> None:
    assert yaml.safe_load(file.read_text())["apiVersion"] == 1
