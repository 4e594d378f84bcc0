"""The cohort tag, as upstreams see it: who gets one, whose is believed, what becomes of lies."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from counterfault.proxy.experiments.cohorts import replicate, salt_of
from tests.support.cases import each
from tests.support.http1_wire import connect, echo, fields, read_answer, scripted
from tests.support.programs import Nginx, Sidecar, free_port, until, user

type Fields = list[tuple[str, str]]

CONTROL, VICTIM, BYSTANDER = user("control"), user("experiment"), user("bystander")
FAULTY = "/faulty"
NGINX = """
    underscores_in_headers on;
    location / { return 200 "$http_x_counterfault|$http_baggage"; }
"""
# A service between two sidecars: it knows nothing of users, and hands baggage down.
SERVICE = """
    proxy_pass_request_headers off; proxy_set_header Baggage $http_baggage;
    location / { proxy_pass http://127.0.0.1:NEXT; }
    location /inner { proxy_pass http://127.0.0.1:NEXT/faulty; }
"""


def tag(cohort: str, unit: str, run: int = 1) -> str:
    return f"x.{cohort}.{replicate(salt_of('x', run), unit.encode())}"


@dataclass(frozen=True, slots=True)
class World:
    """Listeners `inbound` and `trusting` lead to a server that repeats the head of a request."""

    sidecar: Sidecar
    chain: Sidecar
    """Its inbound leads to a service that calls `sidecar`'s outbound listener `second`."""
    sent: Counter[str] = field(default_factory=Counter)
    """Requests to each listener."""

    def get(self, listener: str, *headers: tuple[str, str], path: str = "/") -> tuple[int, bytes]:
        """Status and body."""
        settings = self.sidecar.settings["listeners"]
        if listener == "chain":
            listener, settings = "inbound", self.chain.settings["listeners"]
            self.sent["second"] += 1
        else:
            self.sent[listener] += 1
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        with connect(int(settings[listener]["listen"].rpartition(":")[2])) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
            answer = read_answer(sock)
            return answer.status, answer.body

    def got(self, listener: str, *headers: tuple[str, str]) -> Fields:
        """The headers that the upstream got, but for Host."""
        status, body = self.get(listener, *headers)
        assert status == 200
        return [(k.decode(), v.decode()) for k, v in fields(body) if k != b"Host"]

    def is_hit(self, listener: str, *headers: tuple[str, str]) -> bool:
        return self.get(listener, *headers, path=FAULTY)[0] == 500

    def counted(self, listener: str, cohort: str) -> float:
        """Requests of a cohort, once all requests so far are counted."""

        def count(**labels: str) -> float:
            return self.sidecar.metric("counterfault_requests_total", listener=listener, **labels)

        until(lambda: count() == self.sent[listener])
        return count(cohort=cohort)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("tag")
    with ExitStack() as stack:
        upstream = stack.enter_context(scripted(echo)).url
        nginx = Nginx(directory / "nginx", NGINX)
        stack.callback(nginx.stop)
        ports = {name: free_port() for name in ("trusting", "nginx", "second", "strict")}
        listen = {name: {"listen": f"127.0.0.1:{port}"} for name, port in ports.items()}
        listeners = {
            "trusting": {**listen["trusting"], "upstream": upstream, "trust": ["127.0.0.0/8"]},
            "strict": {**listen["strict"], "upstream": upstream, "trust": ["10.0.0.0/8"]},
            "nginx": {**listen["nginx"], "upstream": nginx.url, "trust": []},
            # An outbound listener believes loopback by itself.
            "second": {**listen["second"], "upstream": upstream},
        }
        sidecar = Sidecar(
            directory / "second", upstream, {"engine": engine, "listeners": listeners}
        )
        service = Nginx(directory / "service", SERVICE.replace("NEXT", str(ports["second"])))
        stack.callback(service.stop)
        chain = Sidecar(directory / "first", service.url, {"engine": engine})
        faults = [
            {"at": name, "error": 500, "match": {"path": FAULTY}} for name in ("inbound", *ports)
        ]
        for each, rules, run in ((sidecar, faults, 1), (chain, faults[:1], 2)):
            stack.callback(each.stop)
            # Other users in the first sidecar: what it says must outrank what the second thinks.
            each.start().running(faults=rules, run=run)
        yield World(sidecar, chain)
        for each in (sidecar, chain):
            assert each.metric("counterfault_internal_errors_total") == 0


# --- who carries one


@each("cohort", ["control", "experiment"])
def test_the_enrolled_carry_a_header_and_a_baggage_member(world: World, cohort: str):
    unit = user(cohort)
    said = tag(cohort, unit)
    assert world.got("inbound", ("X-User-Id", unit)) == [
        ("X-User-Id", unit),
        ("x-counterfault", said),
        ("baggage", f"counterfault.tag={said}"),
    ]
    assert world.get("nginx", ("x-user-id", unit))[1] == f"{said}|counterfault.tag={said}".encode()


@each("headers", [[("x-user-id", BYSTANDER)], []])
def test_others_carry_none(world: World, headers: Fields):
    assert world.got("inbound", *headers) == headers
    assert world.get("nginx", *headers)[1] == b"|"


def test_baggage_of_others_stays_and_ours_comes_last(world: World):
    baggage = ("baggage", "a=1;p=q, counterfault.unit=z,b=%20")
    assert world.got("inbound", ("x-user-id", VICTIM), baggage)[1:] == [
        ("baggage", f"{baggage[1]},counterfault.tag={tag('experiment', VICTIM)}"),
        ("x-counterfault", tag("experiment", VICTIM)),
    ]


# --- lies

LIES: list[Fields] = [
    [("x-counterfault", "x.experiment.1")],
    [("X-Counterfault", "x.experiment.1")],
    [("x_counterfault", "x.experiment.1")],
    [("X_COUNTERFAULT", "x.experiment.1")],
    [("x-counterfault", "x.control.1"), ("x-counterfault", "x.experiment.1")],
    [("x-counterfault", "x.control.1"), ("X_Counterfault", "x.experiment.1")],
    [("baggage", "counterfault.tag=x.experiment.1")],
    [("Baggage", " counterfault.tag = x.experiment.1 ; p=q")],
    [("baggage", "counterfault.tag=x.experiment.1,counterfault.tag=x.control.1")],
    [("x-counterfault", "y.experiment.1")],
]
MALFORMED = [
    "",
    "x",
    "x.experiment",
    "x.experiment.64",
    "x.experiment.01",
    "x.experiment.-1",
    "x.bystander.1",
    "X.experiment.1",
    "x.experiment.1.1",
    "x y.experiment.1",
    "x.experiment.1, x.control.1",
    "a" * 41 + ".experiment.1",
    "é.experiment.1",
]


@each("lie", LIES)
@each("listener", ["inbound", "strict"])
def test_a_stranger_is_not_believed_and_not_repeated(world: World, listener: str, lie: Fields):
    assert world.got(listener, *lie, ("x-user-id", BYSTANDER)) == [("x-user-id", BYSTANDER)]
    assert not world.is_hit(listener, *lie)
    assert not world.is_hit(listener, *lie, ("x-user-id", BYSTANDER))
    assert not world.is_hit(listener, *lie, ("x-user-id", CONTROL))
    assert world.is_hit(listener, ("x-counterfault", "x.control.1"), ("x-user-id", VICTIM))


@each("lie", LIES)
def test_nginx_finds_no_trace_of_a_lie(world: World, lie: Fields):
    assert world.get("nginx", *lie)[1] == b"|"
    said = tag("control", CONTROL)
    assert world.get("nginx", *lie, ("x-user-id", CONTROL))[1] == (
        f"{said}|counterfault.tag={said}".encode()
    )


def test_a_lie_in_baggage_goes_and_the_other_members_stay(world: World):
    lie = ("baggage", "a=1, counterfault.tag=x.experiment.1;p=q ,b=2;c=3")
    assert world.got("inbound", lie, ("baggage", "counterfault.tag=x.experiment.2,d=4")) == [
        ("baggage", "a=1,b=2;c=3"),
        ("baggage", "d=4"),
    ]


@each("value", MALFORMED)
@each("listener", ["inbound", "trusting"])
def test_a_malformed_tag_is_removed_whoever_sends_it(world: World, listener: str, value: str):
    headers = [("x-counterfault", value)]
    if "," not in value:
        headers.append(("baggage", f"counterfault.tag={value}"))
    assert world.got(listener, *headers) == []
    assert not world.is_hit(listener, *headers)
    assert world.is_hit(listener, *headers, ("x-user-id", VICTIM))


# --- those who are believed


@each("unit", [CONTROL, VICTIM, BYSTANDER, None])
@each("cohort", ["control", "experiment"])
@each("carrier", ["x-counterfault", "baggage"])
def test_a_trusted_tag_decides_whoever_the_user_is(
    world: World, unit: str | None, cohort: str, carrier: str
):
    said = f"x.{cohort}.7"
    carried = (carrier, said if carrier == "x-counterfault" else f"counterfault.tag={said}")
    user_id = [] if unit is None else [("x-user-id", unit)]
    assert world.got("trusting", *user_id, carried) == [
        *user_id,
        ("x-counterfault", said),
        ("baggage", f"counterfault.tag={said}"),
    ]
    assert world.is_hit("trusting", *user_id, carried) == (cohort == "experiment")


def test_a_trusted_header_outranks_the_baggage(world: World):
    two = [("baggage", "counterfault.tag=x.experiment.1"), ("x-counterfault", "x.control.2")]
    assert not world.is_hit("trusting", *two)
    assert dict(world.got("trusting", *two)) == {
        "x-counterfault": "x.control.2",
        "baggage": "counterfault.tag=x.control.2",
    }


def test_a_trusted_tag_of_an_unknown_experiment_is_handed_on_and_enrols_nobody(world: World):
    unknown = ("x-counterfault", "elsewhere.experiment.9")
    for unit in (VICTIM, CONTROL, BYSTANDER):
        before = world.counted("trusting", "bystander")
        assert not world.is_hit("trusting", unknown, ("x-user-id", unit))
        assert world.counted("trusting", "bystander") == before + 1
    assert world.got("trusting", unknown) == [
        unknown,
        ("baggage", "counterfault.tag=elsewhere.experiment.9"),
    ]


# --- two sidecars in a row


@each("cohort", ["control", "experiment"])
def test_the_second_sidecar_takes_the_cohort_of_the_first(world: World, cohort: str):
    unit = user(cohort, run=2)
    before = {c: world.counted("second", c) for c in ("control", "experiment", "bystander")}
    status, body = world.get("chain", ("x-user-id", unit))
    assert status == 200
    assert f"x-counterfault: {tag(cohort, unit, run=2)}\r\n".encode() in body
    assert not re.search(rb"(?i)x-user-id", body)
    after = {c: world.counted("second", c) for c in before}
    assert after == {**before, cohort: before[cohort] + 1}


def test_a_fault_of_the_second_sidecar_hits_the_users_of_the_first(world: World):
    for cohort in ("experiment", "control", "bystander"):
        status, _ = world.get("chain", ("x-user-id", user(cohort, run=2)), path="/inner")
        assert status == (500 if cohort == "experiment" else 200)
    assert world.chain.metric("counterfault_faults_total", result="performed") == 0


def test_a_bystander_of_the_first_is_one_at_the_second(world: World):
    before = world.counted("second", "bystander")
    status, body = world.get("chain", ("x-user-id", user("bystander", run=2)))
    assert (status, b"counterfault" in body.lower()) == (200, False)
    assert world.counted("second", "bystander") == before + 1
