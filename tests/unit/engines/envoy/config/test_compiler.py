"""Plan to Envoy configuration, compared with what was read and found right before.

After a change that is meant, call pytest on this file with `GOLDEN=write` in the environment, and
read the difference.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config import lua_program, native_faults
from counterfault.proxy.engines.envoy.config.bootstrap import bootstrap
from counterfault.proxy.engines.envoy.config.compiler import (
    HostInputs,
    compile_config,
    split_active_faults,
)
from counterfault.proxy.engines.envoy.detour.worker_config import detoured_listeners, worker_config
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Epoch, State
from counterfault.proxy.experiments.run_status import RunStatus

GOLDEN = Path(__file__).with_name("golden.json")
COHORTS = {"experiment": "1%", "control": "2%"}
SIDECAR: dict[str, Any] = {
    "service": "shop",
    "engine": "envoy",
    "workers": 2,
    "unit": [{"baggage": "counterfault.unit"}, {"header": "x-user-id"}],
    "trust": ["10.0.0.0/8", "::1/128"],
    "listeners": {
        "inbound": {"listen": "0.0.0.0:8080", "upstream": "http://127.0.0.1:3000"},
        "payments": {"listen": "127.0.0.1:9101", "upstream": "https://payments.example"},
        "catalog": {
            "listen": "127.0.0.1:9102",
            "upstream": ["http://10.0.0.1:80", "http://10.0.0.2:80"],
            "tls": {"cert": "cert.pem", "key": "key.pem"},
        },
        "cache": {"listen": "127.0.0.1:6380", "upstream": "tcp://127.0.0.1:6379"},
        "out": {"listen": "127.0.0.1:9105", "mode": "forward"},
    },
}
NATIVE: dict[str, Any] = {
    "experiment": "native",
    "state": "running",
    "duration": "1h",
    "cohorts": COHORTS,
    "faults": [
        {"at": "payments", "latency": "400ms", "match": {"method": "POST", "prefix": "/charge"}},
        {"at": "payments", "error": {"status": 503, "body": 'no "luck"\n'}, "dose": "5%"},
        {
            "at": "catalog",
            "drop": "close",
            "match": {"host": "Shop.Example", "headers": {"a": "é"}},
        },
    ],
    "steady_state": [
        {"name": "good", "at": "inbound", "success_rate": {"drop": "1pp"}},
        {"name": "orders", "at": "inbound", "match": {"regex": "/o.*"}, "rate": {"drop": "5%"}},
    ],
}
DETOUR: dict[str, Any] = {
    **NATIVE,
    "experiment": "detour",
    "faults": [{"at": "payments", "drop": "close", "when": "after"}],
}


def config(*experiments: dict[str, Any], **sidecar: Any) -> Config:
    raw = {**SIDECAR, **sidecar}
    made = tuple(Experiment.model_validate(e) for e in experiments)
    return Config(Path("/etc/shop"), Sidecar.model_validate(raw), made, raw, experiments)


def running(*names: str, state: State = State.RUNNING) -> dict[str, RunStatus]:
    return {name: RunStatus(Epoch.of("1.0", state)) for name in names}


FOUND = HostInputs(
    workers={"payments": ("127.0.0.1", 7001)},
    tls={"catalog": ("CERTIFICATE", "KEY")},
    ca=dict.fromkeys(SIDECAR["listeners"], "/etc/ssl/ca.pem"),
)


def files() -> dict[str, Any]:
    """All that Envoy reads, with the program's own text left out."""
    both = config(NATIVE, DETOUR)
    made = compile_config(both, running("native", "detour"), FOUND).files()
    text = json.dumps({"bootstrap.json": bootstrap(both.sidecar), **made}, sort_keys=True)
    before, after = (
        json.dumps(part)[1:-1] for part in lua_program._template().split(lua_program._PLACEHOLDER)
    )
    whole: dict[str, Any] = json.loads(text.replace(before, "").replace(after, ""))
    return whole


def test_it_is_what_it_was() -> None:
    made = json.dumps(files(), indent=1, sort_keys=True) + "\n"
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text()


def asked(routes: dict[str, Any]) -> list[str]:
    """The experiments that a listener's program knows."""
    (host,) = routes["virtual_hosts"]
    program = host["typed_per_filter_config"]["envoy.filters.http.lua"]["source_code"]
    return re.findall(r'\["name"\]="([a-z]+)",\["seed"\]', program["inline_string"])


def test_only_experiments_under_way_are_asked() -> None:
    def arms(runs: dict[str, RunStatus]) -> int:
        routes = compile_config(config(NATIVE), runs, FOUND).routes["inbound"]
        return asked(routes).count("native")

    assert arms(running("native")) == 1
    assert arms({}) == 0
    assert arms(running("native", state=State.STOPPED)) == 0


def test_without_workers_nobody_is_enrolled_in_what_detours() -> None:
    alone = HostInputs({}, FOUND.tls, FOUND.ca)
    made = compile_config(config(NATIVE, DETOUR), running("native", "detour"), alone)
    assert asked(made.routes["payments"]) == ["native"]


@pytest.mark.parametrize(
    ("experiments", "limit", "shares"),
    [
        ([NATIVE], 100, (100, 0)),
        ([DETOUR], 100, (0, 100)),
        ([NATIVE, DETOUR], 101, (50, 51)),
        ([NATIVE, DETOUR], 1, (0, 1)),
    ],
)
def test_the_faults_at_a_time_are_shared_with_the_workers(
    experiments: list[dict[str, Any]], limit: int, shares: tuple[int, int]
) -> None:
    both = config(*experiments, limits={"active_faults": limit})
    assert split_active_faults(both) == shares


def test_workers_believe_envoy_and_nobody_else() -> None:
    both = config(NATIVE, DETOUR)
    assert detoured_listeners(both) == {"payments"}
    own = worker_config(both, {"payments": ("127.0.0.1", 7001)})
    assert own is not None
    assert set(own.sidecar.listeners) == {"payments", "cache", "out"}
    payments = own.sidecar.listeners["payments"]
    assert (payments.listen, payments.tls) == ("127.0.0.1:7001", None)
    assert [str(n) for n in own.sidecar.trusted("payments")] == ["127.0.0.1/32"]
    assert own.sidecar.engine == "mitmproxy"
    assert native_faults.detours(both.experiments[0]) == {}


def test_a_program_holds_any_text() -> None:
    said = lua_program.literal(['a"b\\c\n]]\0é', b"\xff", True, 1, 0.5, {"k-1": []}])
    assert said == (r'{"a\034b\092c\010]]\000\195\169","\255",true,1,0.5,{["k-1"]={}}}')
