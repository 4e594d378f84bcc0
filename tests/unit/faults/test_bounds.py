"""Every parameter of every fault has bounds, and a sentence that says them."""

import re

import pytest
import yaml

from counterfault.proxy.config.validation_errors import validate
from counterfault.proxy.config.yaml_reader import read_yaml
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.faults.corrupt import JsonChange
from counterfault.proxy.faults.headers import Changes
from counterfault.proxy.faults.latency import Lognormal
from counterfault.proxy.faults.registry import KNOWN

DURATION = "must be a duration such as 250ms, 3s, 30m or 1h, not"
SIZE = "must be a size such as 512B, 10KB (1000) or 1MiB (1024 * 1024), not"
RATE = "must be a rate such as 50KB/s, 1MiB/s, 256kbit/s or 10Mbit/s, not"
RATES = "must be 1B/s to 1GB/s, not"
SHARE = "must be a share such as 1% or 0.05%, not"
CODE = "must be one of CANCELLED, UNKNOWN, "
P50 = {"p50": "1ms"}

# A parameter, what it may not be told, and what is said to that; `…` stands for the rest.
WRONG = [
    ("latency.fixed", "61m", "must be at most 1h, not 61m"),
    ("latency.fixed", 400, f"{DURATION} 400"),
    ("latency.mean", "2h", "must be at most 1h, not 2h"),
    ("latency.jitter", "2h", "must be at most 1h, not 2h"),
    ("latency.jitter", "-1s", f"{DURATION} '-1s'"),
    *((f"latency.{p}", "0s", "must be longer than 0s") for p in ("p50", "p75", "p90", "p95")),
    *((f"latency.{p}", "61m", "must be at most 1h, not 61m") for p in ("p50", "p99", "p999")),
    ("latency.max", "0ms", "must be longer than 0s"),
    ("latency.max", "61m", "must be at most 1h, not 61m"),
    ("latency.recorded", "none.csv", "cannot read none.csv: no such file"),
    ("latency.recorded", "big", "big must be at most 1024 KiB"),
    ("latency.recorded", 5, "must be a file's name, not 5"),
    ("latency.lognormal.median", "0s", "must be longer than 0s"),
    ("latency.lognormal.median", "61m", "must be at most 1h, not 61m"),
    ("latency.lognormal.sigma", 0, "must be above 0, not 0"),
    ("latency.lognormal.sigma", 3.5, "must be at most 3, not 3.5"),
    ("error.status", 199, "must be at least 200, not 199"),
    ("error.status", 600, "must be at most 599, not 600"),
    ("error.status", "503", "must be a whole number, not '503'"),
    ("error.body", "x" * 65537, "must be at most 65536 characters long"),
    ("error.body_file", "big", "big must be at most 64 KiB"),
    ("error.headers.content-length", "5", "must not be a framing header (content-length, …"),
    ("error.headers.x-a", "é", "must be ASCII without line breaks"),
    ("error.headers.x-a", "y" * 8193, "must be at most 8192 characters long"),
    ("error.headers", {f"x-{i}": "1" for i in range(51)}, "must have at most 50 items"),
    ("error.grpc", "OK", f"{CODE}…, or 1 to 16, not 'OK'"),
    ("error.grpc", 17, f"{CODE}…, or 1 to 16, not 17"),
    ("error.message", "x" * 1025, "must be at most 1024 characters long"),
    ("drop.mode", "rst", "must be one of close, hang, reset, not 'rst'"),
    ("drop.hang", "0s", "must be longer than 0s"),
    ("drop.hang", "2h", "must be at most 1h, not 2h"),
    ("bandwidth.down", "0B/s", f"{RATES} 0B/s"),
    ("bandwidth.down", "2GB/s", f"{RATES} 2GB/s"),
    ("bandwidth.up", "0.5B/s", f"{RATES} 0.5B/s"),
    ("bandwidth.up", 1000, f"{RATE} 1000"),
    ("slow_start.chunk", "0B", "must be a whole number of bytes, 1B to 1GB, not 0B"),
    ("slow_start.chunk", "2MiB", "must be at most 1MiB"),
    ("slow_start.chunk", 100, f"{SIZE} 100"),
    ("slow_start.delay", "0s", "must be longer than 0s"),
    ("slow_start.delay", "61s", "must be at most 1m, not 61s"),
    ("truncate.after", "0.5B", "must be a whole number of bytes, 1B to 1GB, not 0.5B"),
    ("truncate.after", "2GB", "must be a whole number of bytes, 1B to 1GB, not 2GB"),
    ("truncate.share", "100%", "must be below 100%"),
    ("truncate.share", "101%", "must be at most 100%, not 101%"),
    ("corrupt.bytes", "0%", "must be above 0%"),
    ("corrupt.bytes", 0.5, f"{SHARE} 0.5"),
    ("corrupt.body", "x" * 65537, "must be at most 65536 characters long"),
    ("corrupt.json.pointer", "a", "must be empty or begin with /, not 'a'"),
    ("corrupt.json.pointer", "/a~2", "must write ~ as ~0 and / within a name as ~1"),
    ("corrupt.json.pointer", "/" + "a" * 1024, "must be at most 1024 characters long"),
    ("corrupt.json.remove", "yes", "must be true or false, not 'yes'"),
    *(
        (f"headers.{side}.{key}", told, said)
        for side in ("request", "response")
        for key, told, said in (
            ("set", {f"x-{i}": "1" for i in range(51)}, "must have at most 50 items"),
            ("set", {"x" * 257: "1"}, "must be at most 256 characters long"),
            ("set", {"x": 5}, "must be text, not 5"),
            ("remove", ["host"], "must not be a framing header (content-length, …"),
            ("remove", [f"x-{i}" for i in range(51)], "must have at most 50 items"),
        )
    ),
    ("duplicate.times", 1, "must be at least 2, not 1"),
    ("duplicate.times", 6, "must be at most 5, not 6"),
]
# Any value that JSON has is one that a member may have.
FREE = {"corrupt.json.value"}


def files(name: str) -> bytes:
    if name != "big":
        raise FileNotFoundError(2, "No such file")
    return bytes((1 << 20) + 1)


def told(parameter: str, value: object) -> list[str]:
    """What is said to a parameter's value."""
    fault, *path = parameter.split(".")
    settings: object = value
    for key in reversed(path):
        settings = {key: settings}
    experiment = {
        "experiment": "x",
        "state": "running",
        "duration": "1h",
        "cohorts": {"experiment": "1%", "control": "1%"},
        "faults": [{"at": "inbound", fault: settings, "unsafe": True}],
    }
    text = yaml.safe_dump(experiment, allow_unicode=True, width=1 << 20).encode()
    return [str(p) for p in validate(read_yaml("x.yaml", text), Experiment, files).problems]


@pytest.mark.parametrize(("parameter", "value", "said"), WRONG)
def test_a_parameter_out_of_bounds_is_refused_with_its_bounds(parameter, value, said):
    wanted = re.escape(said).replace("…", ".*")
    found = told(parameter, value)
    assert any(
        re.search(rf": faults\.0\.{re.escape(parameter)}[^:]*: {wanted}", p) for p in found
    ), found


def _fields(model, name):
    inside = {"lognormal": Lognormal, "document": JsonChange, "request": Changes}
    inside["response"] = Changes
    for field, info in model.model_fields.items():
        called = f"{name}.{info.alias or field}"
        if field in inside:
            yield from _fields(inside[field], called)
        else:
            yield called


def test_no_parameter_is_without_bounds():
    known = {p for name, kind in KNOWN.items() for p in _fields(kind, name)}
    assert known - {parameter for parameter, _, _ in WRONG} - FREE == set()
