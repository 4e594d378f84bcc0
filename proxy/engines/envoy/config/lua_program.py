"""The Lua program that assigns requests and performs native faults, with a listener's data."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from math import ceil
from typing import assert_never

from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.config.names import BEGINS_PIPE, LEASE_FILE
from counterfault.proxy.engines.envoy.config.native_faults import (
    Detour,
    Native,
    NativeDelay,
    NativeDrop,
    NativeResponse,
)
from counterfault.proxy.engines.envoy.config.upstream_addresses import ring_positions, sticky
from counterfault.proxy.experiments.cohorts import CIRCLE, seed_of
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.fault_rule import FaultRule
from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.faults.actions import Respond
from counterfault.proxy.values.matching import Match

type Value = str | bytes | bool | int | float | list[Value] | dict[str, Value]

_PLACEHOLDER = "--[[DATA]] nil"
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
    "begin",
    "faults",
    "assign",
)
# The header in which Lua hands a request's unit to Envoy's ring, at listeners with several
# upstreams. The upstream's own filter removes it.
STICKY_HEADER = "x-counterfault-unit"
# Lua's numbers are doubles, which hold every integer up to here.
_EXACT = 2**53


def source(sidecar: Sidecar, listener: str, data: dict[str, Value]) -> str:
    """Return the program of one listener.

    Args:
        sidecar: The model of sidecar.yaml.
        listener: The listener's name.
        data: More entries of the table DATA that the program reads.
    """
    settings: dict[str, Value] = {
        "listener": listener,
        "lease": LEASE_FILE,
        "begins": BEGINS_PIPE,
        "active_faults": sidecar.limits.active_faults,
        "sticky": STICKY_HEADER if sticky(sidecar.listeners[listener]) else False,
        "ring": ring_positions(sidecar.listeners[listener]),
        "trusted": [[n.network_address.packed, n.prefixlen] for n in sidecar.trusted(listener)],
        "sources": [[kind, name] for s in sidecar.unit for kind, name in s if name],
        "protect": dict.fromkeys(sidecar.protect, True),
        **data,
    }
    return _template().replace(_PLACEHOLDER, literal(settings), 1)


@cache
def _template() -> str:
    directory = files(__package__).joinpath("program")
    return "\n".join(directory.joinpath(f"{part}.lua").read_text() for part in _PARTS)


def arms(listener: str, live: Iterable[Experiment], runs: Mapping[str, RunStatus]) -> list[Value]:
    """Return the live experiments as Lua data; the first whose arc holds a unit enrolls it."""
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
        "regex": native_faults.need_regex([m.match for m in metrics]),
        "metrics": [{"name": m.name, "match": _match(m.match)} for m in metrics],
        "rules": list(_rules(listener, e)),
    }


def _rules(listener: str, e: Experiment) -> list[Value]:
    if listener in native_faults.detours(e):
        return []
    found: list[Value] = []
    for number, rule in enumerate(e.faults):
        made = native_faults.native_fault(rule)
        if rule.at == listener and not isinstance(made, Detour):
            found.append(_rule(number, rule, made))
    return found


def _rule(number: int, rule: FaultRule, made: Native) -> Value:
    data: dict[str, Value] = {
        "number": number,
        "dose": rule.dose.share,
        "match": _match(rule.match),
    }
    match made:
        case NativeDelay(quantiles, drop):
            kind = "drop" if drop else "hold"
            table = ",".join(f"{milliseconds:.6g}" for milliseconds in quantiles)
            return {**data, "kind": kind, "quantiles": table}
        case NativeResponse(plain, grpc):
            return {**data, "kind": "respond", "plain": _response(plain), "grpc": _response(grpc)}
        case NativeDrop():
            return {**data, "kind": "drop"}
        case other:
            assert_never(other)


def _response(respond: Respond) -> Value:
    headers: list[Value] = [[name, value] for name, value in respond.headers]
    return {"status": str(respond.status), "headers": headers, "body": respond.body}


def _match(match: Match) -> Value:
    data: dict[str, Value] = {"headers": [[name, value] for name, value in match.headers.items()]}
    if match.method:
        data["method"] = dict.fromkeys(match.method, True)
    for name in ("path", "prefix"):
        if (value := getattr(match, name)) is not None:
            data[name] = value
    if match.host is not None:
        data["host"] = match.host.lower()
    return data


def literal(value: Value) -> str:
    """Return a value as a Lua expression."""
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
    """Return a Lua string; bytes with a meaning in Lua or JSON are escaped by their number."""
    plain = (32, 33, *range(35, 92), *range(93, 127))
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03d}" for b in raw) + '"'
