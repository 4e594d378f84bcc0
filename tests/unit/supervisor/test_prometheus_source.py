"""A Prometheus server is a source of metrics: it answers, or says in one line why not."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from counterfault.proxy.analysis.external.prometheus_response import Answer, Level
from counterfault.proxy.config.loader import load
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.supervisor.metric_source import MetricSource, NoAnswer
from counterfault.proxy.supervisor.prometheus_source import configured_source
from tests.support.programs import free_port
from tests.support.prometheus_stub import Server, running, sized
from tests.support.supervisor_world import World

QUERIES = {Cohort.CONTROL: "up{of='control'}", Cohort.EXPERIMENT: "up{of='experiment'}"}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def configured(directory: Path, url: str, **settings: str) -> MetricSource:
    World(directory).write(prometheus={"url": url, "timeout": "500ms", **settings})
    source = configured_source(load(directory))
    assert source is not None
    return source


def answers(source: MetricSource) -> Mapping[Cohort, Answer]:
    return asyncio.run(source.query(QUERIES, 1234.5))


def why_not(source: MetricSource) -> str:
    with pytest.raises(NoAnswer) as found:
        answers(source)
    return str(found.value)


def test_without_a_server_there_is_no_source(tmp_path: Path) -> None:
    World(tmp_path).write()
    assert configured_source(load(tmp_path)) is None


def test_each_cohort_has_its_answer(tmp_path: Path, server: Server) -> None:
    found = answers(configured(tmp_path, server.url))
    assert found == {Cohort.CONTROL: Level(100.0), Cohort.EXPERIMENT: Level(50.0)}
    assert {form["time"][0] for _, form, _ in server.asked} == {"1234.500"}
    assert sorted(form["query"][0] for _, form, _ in server.asked) == sorted(QUERIES.values())


def test_a_token_is_read_for_each_query(tmp_path: Path, server: Server) -> None:
    (tmp_path / "token").write_text("first")
    source = configured(tmp_path, server.url, token_file="token")
    answers(source)
    (tmp_path / "token").write_text("second")
    answers(source)
    assert [token for _, _, token in server.asked[::2]] == ["Bearer first", "Bearer second"]
    (tmp_path / "token").unlink()
    assert why_not(source) == "token_file: no such file or directory"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (sized(b"{}", b"503 Busy"), "HTTP 503"),
        (sized(b"no JSON"), "HTTP 200, not the JSON of Prometheus' API"),
        (b"\r\n", ""),
    ],
)
def test_an_unusable_response_is_no_answer(
    tmp_path: Path, server: Server, raw: bytes, why: str
) -> None:
    server.raw = raw
    assert why in why_not(configured(tmp_path, server.url))


def test_a_server_that_is_not_there_or_says_nothing_is_no_answer(
    tmp_path: Path, server: Server
) -> None:
    assert "refused" in why_not(configured(tmp_path, f"http://127.0.0.1:{free_port()}"))
    server.hangs = True
    assert "Timeout" in why_not(configured(tmp_path, server.url))
    server.released.set()
