"""Whom Envoy leaves alone without asking the program: never somebody who is enrolled or tagged."""

import random
from typing import Any

from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.plan import Plan
from counterfault.proxy.experiments.cohort_tag import text
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.values.request import Request
from tests.support import http1_wire
from tests.support.programs import MakeSidecar

UNIT = [{"baggage": "unit"}, {"header": "x-user"}, {"cookie": "session"}, {"header": "x-account"}]
COHORTS = {
    "a": {"experiment": "20%", "control": "15%"},
    "b": {"experiment": "1%", "control": "50%"},
}
REQUESTS = 1500


def said(name: str) -> dict[str, Any]:
    faults = [{"at": "inbound", "error": 503, "match": {"path": "/never"}}]
    return {"cohorts": COHORTS[name], "faults": faults}


def fields(chance: random.Random) -> list[tuple[bytes, bytes]]:
    """Units in none, some or all of the places, empty ones, repeated ones, tags of a liar."""
    user = b"%d\xfc" % chance.randrange(10**6)
    kinds = [
        (b"x-user", [b"", user, user + b",x", b"x , " + user]),
        (b"x-account", [user, b""]),
        (b"cookie", [b"session=" + user, b"a=b; session=" + user, b"session=", b"xsession=1"]),
        (b"baggage", [b"unit=" + user, b"k=v, unit = " + user + b" ;p=1", b"unit=", b"units=1"]),
        (b"baggage", [b"counterfault.tag=a.control.1", b"counterfault.tag=\xff"]),
        (b"x-counterfault", [b"a.experiment.7", b"", b"\xff\xfe"]),
        (b"x_counterfault", [b"a.experiment.7", b""]),
    ]
    found = [
        (name, chance.choice(values))
        for name, values in kinds
        for _ in range(chance.choices((0, 1, 2), (6, 3, 1))[0])
    ]
    chance.shuffle(found)
    return found


def test_the_unit_is_found_wherever_it_is_and_no_tag_gets_through(
    make_sidecar: MakeSidecar,
) -> None:
    chance, wrong, seen = random.Random(7), [], set()
    with http1_wire.scripted(http1_wire.echo) as upstream:
        sidecar = make_sidecar(upstream.url, engine="envoy", unit=UNIT).start()
        for name in COHORTS:
            sidecar.running(name, **said(name))
        experiments = tuple(
            Experiment.model_validate(sidecar.said(name, **said(name))) for name in COHORTS
        )
        runs = dict.fromkeys(COHORTS, RunStatus(Epoch("1.0.running")))
        plan = Plan(Sidecar.model_validate(sidecar.settings), experiments, runs)
        with http1_wire.connect(sidecar.port) as sock:
            for _ in range(REQUESTS):
                headers = fields(chance)
                request = Request(b"GET", b"a", b"/", tuple(headers))
                found = plan.assign(request, plan.unit(request), None)
                lines = b"".join(b"%s: %s\r\n" % field for field in headers)
                sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n%s\r\n" % lines)
                tags = [text(found)] * 2 if found else []
                seen.add(found and (found.experiment, found.cohort))
                if (got := carried(http1_wire.read_answer(sock).body)) != tags:
                    wrong.append((headers, tags, got))
    assert wrong == []
    assert len(seen) == 5


def carried(head: bytes) -> list[bytes]:
    """The tags of a request: of the header in any spelling, and of the baggage's member."""
    found, inside = [], []
    for name, value in http1_wire.fields(head):
        if name.lower().replace(b"_", b"-") == b"x-counterfault":
            found.append(value)
        if name.lower() == b"baggage":
            members = (member.strip() for member in value.split(b","))
            inside += [m[17:] for m in members if m.startswith(b"counterfault.tag")]
    return found + inside
