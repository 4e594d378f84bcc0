"""The assignment as Envoy runs it: the program with one listener's data put into it."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from math import ceil
from typing import assert_never

from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.config.native_faults import (
    Detour,
    Native,
    NativeDelay,
    NativeDrop,
    NativeResponse,
)
from counterfault.proxy.engines.envoy.config.upstream_addresses import places, sticky
from counterfault.proxy.experiments.cohorts import CIRCLE, seed_of
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.fault_rule import FaultRule
from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.faults.actions import Respond
from counterfault.proxy.values.matching import Match

type Value = str | bytes | bool | int | float | list[Value] | dict[str, Value]

_PLACE = "--[[DATA]] nil"
_PARTS = (
    "head",
    "hash",
    "lease",
    "unit",
    "ring",
    "enrolment",
    "tag",
    "trust",
    "match",
    "faults",
    "assign",
)
# A listener with several upstreams hashes this header, which goes no further than the upstream's
# own filters.
STICKY = "x-counterfault-unit"
LEASE = "lease"
# Up to here Lua's numbers, which are doubles, have every integer.
_EXACT = 2**53


def source(sidecar: Sidecar, listener: str, data: dict[str, Value]) -> str:
    """The program of one listener."""
    settings: dict[str, Value] = {
        "lease": LEASE,
        "active_faults": sidecar.limits.active_faults,
        "sticky": STICKY if sticky(sidecar.listeners[listener]) else False,
        "ring": places(sidecar.listeners[listener]),
        "trusted": [[n.network_address.packed, n.prefixlen] for n in sidecar.trusted(listener)],
        "sources": [[kind, name] for s in sidecar.unit for kind, name in s if name],
        "protect": dict.fromkeys(sidecar.protect, True),
        **data,
    }
    return _template().replace(_PLACE, literal(settings), 1)


@cache
def _template() -> str:
    directory = files(__package__).joinpath("program")
    return "\n".join(directory.joinpath(f"{part}.lua").read_text() for part in _PARTS)


def arms(listener: str, live: Iterable[Experiment], runs: Mapping[str, RunStatus]) -> list[Value]:
    """Experiments under way, in the order in which they are asked."""
    return [_arm(listener, e, runs[e.name]) for e in live]


def _arm(listener: str, e: Experiment, run: RunStatus) -> Value:
    metrics = [m for m in e.steady_state if m.at == listener]
    return {
        "name": e.name,
        "seed": seed_of(e.salt),
        "epoch": run.epoch,
        "running": run.state is State.RUNNING,
        "experiment": ceil(e.cohorts.experiment * CIRCLE),
        "control": ceil((0.5 + e.cohorts.control) * CIRCLE),
        "detour": listener in native_faults.detours(e),
        "regex": native_faults.counted([m.match for m in metrics]),
        "metrics": [{"name": m.name, "match": _match(m.match)} for m in metrics],
        "rules": list(_rules(listener, e)),
    }


def _rules(listener: str, e: Experiment) -> list[Value]:
    if listener in native_faults.detours(e):
        return []
    found: list[Value] = []
    for number, rule in enumerate(e.faults):
        made = native_faults.program(rule)
        if rule.at == listener and not isinstance(made, Detour):
            found.append(_rule(number, rule, made))
    return found


def _rule(number: int, rule: FaultRule, made: Native) -> Value:
    said: dict[str, Value] = {
        "number": number,
        "dose": rule.dose.share,
        "match": _match(rule.match),
    }
    match made:
        case NativeDelay(quantiles, drop):
            kind = "drop" if drop else "hold"
            table = ",".join(f"{milliseconds:.6g}" for milliseconds in quantiles)
            return {**said, "kind": kind, "quantiles": table}
        case NativeResponse(plain, grpc):
            return {**said, "kind": "respond", "plain": _answer(plain), "grpc": _answer(grpc)}
        case NativeDrop():
            return {**said, "kind": "drop"}
        case other:
            assert_never(other)


def _answer(respond: Respond) -> Value:
    headers: list[Value] = [[name, value] for name, value in respond.headers]
    return {"status": str(respond.status), "headers": headers, "body": respond.body}


def _match(match: Match) -> Value:
    said: dict[str, Value] = {"headers": [[name, value] for name, value in match.headers.items()]}
    if match.method:
        said["method"] = dict.fromkeys(match.method, True)
    for name in ("path", "prefix"):
        if (value := getattr(match, name)) is not None:
            said[name] = value
    if match.host is not None:
        said["host"] = match.host.lower()
    return said


def literal(value: Value) -> str:
    """A value as Lua writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if value >= _EXACT:
            return f"{value:#x}ULL"
        case int() | float():
            return repr(value)
        case str():
            return _text(value.encode())
        case bytes():
            return _text(value)
        case list():
            return "{" + ",".join(map(literal, value)) + "}"
        case dict():
            return "{" + ",".join(f"[{literal(k)}]={literal(v)}" for k, v in value.items()) + "}"
        case other:
            assert_never(other)


def _text(raw: bytes) -> str:
    """Every byte that could mean something to Lua or JSON as its number."""
    plain = (32, 33, *range(35, 92), *range(93, 127))
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03d}" for b in raw) + '"'
