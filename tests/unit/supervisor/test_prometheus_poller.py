"""A Prometheus server is asked politely, and may answer anything."""

import asyncio
import json
import logging
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from counterfault.proxy.analysis.external.prometheus_response import Answer, Level
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.measurement.keys import InternalErrorKey
from counterfault.proxy.supervisor.metric_source import NoAnswer
from counterfault.proxy.supervisor.prometheus_poller import EVERY, LAG, PrometheusPoller
from counterfault.proxy.supervisor.prometheus_source import configured_source
from tests.support.api_json import as_data
from tests.support.programs import free_port
from tests.support.prometheus_stub import Server, level, running, sized
from tests.support.supervisor_world import SLOW, World

ORDERS = {"name": "orders", "prometheus": {"query": 'o{c="$cohort"}', "drop": "5%"}}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def started(world: World, url: str, *metrics: dict[str, Any], **settings: Any) -> PrometheusPoller:
    """A live run with outside metrics, and who asks for them."""
    experiment = SLOW | {"baseline": "0s", "steady_state": list(metrics or [ORDERS])}
    world.write(experiment, prometheus={"url": url, "timeout": "500ms", **settings})
    supervisor = world.start()
    world.pass_time(1)
    assert supervisor.registry.runs["slow"].state is State.RUNNING
    clocks = (lambda: world.now, lambda: world.now)
    return PrometheusPoller(
        supervisor.config.sidecar.service,
        lambda: configured_source(supervisor.config),
        supervisor.live,
        supervisor.readings,
        supervisor.failed,
        *clocks,
    )


def ask(asking: PrometheusPoller) -> None:
    async def everything() -> None:
        await asyncio.gather(*(asking.ask(question) for question in asking.due()))

    asyncio.run(everything())


def seen(world: World) -> dict[str, Any]:
    """The metric in the run's summary, after a tick."""
    world.supervisor.tick()
    summary = world.supervisor.reader.summary("slow")
    assert summary is not None
    found: dict[str, Any] = as_data(summary)["metrics"][0]
    return found


def test_both_cohorts_are_asked_for_at_the_same_moment(world: World, server: Server) -> None:
    asking = started(world, f"{server.url}/prometheus/")
    world.now += LAG
    ask(asking)
    assert sorted(form["query"] for _, form, _ in server.asked) == [
        ['o{c="control"}'],
        ['o{c="experiment"}'],
    ]
    assert {path for path, _, _ in server.asked} == {"/prometheus/api/v1/query"}
    assert {form["time"][0] for _, form, _ in server.asked} == {f"{world.now - LAG:.3f}"}
    assert seen(world)["levels"] == ["100", "50"]
    assert seen(world)["effect"] == 0.5


def test_the_other_variables_are_put_in_and_other_dollars_stay(
    world: World, server: Server
) -> None:
    query = 'o{c="$cohort",e="$experiment",r="$run",s="$service",x=~"a$|$cohorts"}'
    ask(started(world, server.url, {"name": "o", "prometheus": {"query": query, "drop": "5%"}}))
    said = 'o{c="control",e="slow",r="1",s="shop",x=~"a$|$cohorts"}'
    assert [said] in [form["query"] for _, form, _ in server.asked]


def test_a_metric_is_asked_for_every_five_seconds_while_its_run_is_live(
    world: World, server: Server
) -> None:
    asking = started(world, server.url)
    ask(asking)
    world.now += EVERY - 1
    assert asking.due() == []
    world.now += 1
    ask(asking)
    assert len(server.asked) == 4
    world.write()
    asyncio.run(world.supervisor.reload())
    world.now += EVERY
    assert asking.due() == []


def test_a_question_that_waits_for_its_answer_is_not_asked_again(
    world: World, server: Server
) -> None:
    asking = started(world, server.url)
    (question,) = asking.due()
    world.now += 10 * EVERY
    assert asking.due() == []
    asyncio.run(asking.ask(question))
    assert len(asking.due()) == 1


def test_a_reload_that_takes_the_server_away_asks_nobody(world: World, server: Server) -> None:
    asking = started(world, server.url)
    (question,) = asking.due()
    world.write()
    asyncio.run(world.supervisor.reload())
    asyncio.run(asking.ask(question))
    assert server.asked == []


def test_the_token_is_sent_read_anew_and_never_said(
    world: World, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    token = world.directory / "token"
    token.write_text("s3cret-1\n")
    asking = started(world, server.url, token_file="token")
    server.raw = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"
    for text in ("s3cret-1\n", "s3cret-2"):
        token.write_text(text)
        ask(asking)
        world.pass_time(EVERY)
    assert [found for _, _, found in server.asked[::2]] == ["Bearer s3cret-1", "Bearer s3cret-2"]
    assert "HTTP 401" in seen(world)["no_data"]
    assert "s3cret" not in caplog.text + json.dumps(seen(world))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no such file or directory"),
        ("", "no token"),
        ("a\nb", "no token"),
        ("é", "no token"),
    ],
)
def test_without_a_good_token_nobody_is_asked(
    world: World, server: Server, text: str | None, why: str
) -> None:
    token = world.directory / "token"
    token.write_text("s3cret")
    asking = started(world, server.url, token_file="token")
    token.unlink() if text is None else token.write_text(text)
    ask(asking)
    assert server.asked == []
    assert why in seen(world)["no_data"]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (sized(b"x" * (5 << 20)), ""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", ""),
        (b"junk\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", ""),
        (
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            "302",
        ),
        (sized(b'{"status": "error", "error": "no such store"}', b"503 Busy"), "no such store"),
        (sized(level("NaN")), "its value is NaN"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000 + b"\r\n\r\n", ""),
        (b"\r\n", ""),
    ],
    ids=["huge", "bad chunks", "junk", "cut", "elsewhere", "error", "NaN", "long head", "empty"],
)
def test_whatever_is_answered_is_at_worst_no_data(
    world: World, server: Server, raw: bytes, why: str
) -> None:
    server.raw = raw
    ask(started(world, server.url))
    assert "no data yet: " in seen(world)["no_data"]
    assert why in seen(world)["no_data"]
    assert world.totals.get(InternalErrorKey("supervisor")) == 0


def test_a_server_that_says_nothing_is_not_waited_for(world: World, server: Server) -> None:
    server.hangs = True
    asking = started(world, server.url)
    ask(asking)
    server.released.set()
    assert "Timeout" in seen(world)["no_data"]


def test_an_outage_and_its_end_are_each_said_once(
    world: World, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "counterfault")
    asking = started(world, server.url)
    bad = sized(b"", b"500 Oops")
    for raw in (b"", bad, bad, bad, b"", b"", bad):
        server.raw = raw
        ask(asking)
        world.pass_time(EVERY)
    told = [r.getMessage() for r in caplog.records if "orders" in r.getMessage()]
    assert [("again" in text) for text in told] == [False, True, False]


def test_nobody_there_is_no_data(world: World) -> None:
    ask(started(world, f"http://127.0.0.1:{free_port()}"))
    assert "Connection refused" in seen(world)["no_data"]


def test_a_certificate_is_verified_with_the_ca(world: World, server: Server) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = _server_context(authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    authority.cert_pem.write_to_path(world.directory / "ca.pem")
    url = server.url.replace("http", "https")
    asking = started(world, url, ca="ca.pem")
    ask(asking)
    assert seen(world)["no_data"] is None
    other.cert_pem.write_to_path(world.directory / "ca.pem")
    world.pass_time(EVERY)
    ask(asking)
    world.pass_time(20)
    assert "certificate verify failed" in seen(world)["no_data"].lower()


def _server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_a_bug_of_ours_is_counted(world: World, server: Server, monkeypatch: Any) -> None:
    asking = started(world, server.url)

    def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(world.supervisor.readings, "answered", broken)
    ask(asking)
    assert world.totals.get(InternalErrorKey("supervisor")) == 1


class Levels:
    """A MetricSource that is no Prometheus; it has no answer while `why` is not empty."""

    def __init__(self) -> None:
        self.why = ""
        self.asked: list[tuple[Mapping[Cohort, str], float]] = []

    async def query(self, queries: Mapping[Cohort, str], at: float) -> Mapping[Cohort, Answer]:
        self.asked.append((queries, at))
        if self.why:
            raise NoAnswer(self.why)
        return {Cohort.CONTROL: Level(100.0), Cohort.EXPERIMENT: Level(50.0)}


def test_any_metric_source_is_polled(world: World) -> None:
    started(world, "http://127.0.0.1:9")
    source, supervisor = Levels(), world.supervisor
    poller = PrometheusPoller(
        "shop",
        lambda: source,
        supervisor.live,
        supervisor.readings,
        supervisor.failed,
        lambda: world.now,
        lambda: world.now,
    )
    source.why = "closed today"
    ask(poller)
    assert "closed today" in seen(world)["no_data"]
    source.why = ""
    world.pass_time(EVERY)
    ask(poller)
    assert seen(world)["levels"] == ["100", "50"]
    queries, at = source.asked[-1]
    assert queries == {c: f'o{{c="{c}"}}' for c in (Cohort.CONTROL, Cohort.EXPERIMENT)}
    assert at == world.now - LAG
    assert world.totals.get(InternalErrorKey("supervisor")) == 0
