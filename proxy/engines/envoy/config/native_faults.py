"""Which faults Envoy performs natively, and why the others take a detour through workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.fault_rule import FaultRule
from counterfault.proxy.faults.actions import (
    Action,
    Delay,
    Disconnect,
    Hang,
    Repeat,
    Respond,
    Rewrite,
    Throttle,
    Truncate,
)
from counterfault.proxy.faults.registry import BUILT_IN
from counterfault.proxy.values.matching import Match
from counterfault.proxy.values.request import Request

# The number of even steps at which a distribution of delays is sampled; faults.lua has it too.
POINTS = 1000
_LAST = 1 - 1e-9

# Requests with which to ask a fault for its action; only a response may differ between them.
PLAIN_REQUEST = Request(b"POST", b"", b"/", ())
_GRPC_REQUEST = Request(b"POST", b"", b"/", ((b"content-type", b"application/grpc"),))


@dataclass(frozen=True, slots=True)
class NativeDelay:
    """Wait, then go on or end without a response.

    Attributes:
        quantiles: POINTS + 1 delays in milliseconds, at even steps of the distribution.
        drop: Whether the exchange ends without a response.
    """

    quantiles: tuple[float, ...]
    drop: bool


@dataclass(frozen=True, slots=True)
class NativeResponse:
    """Respond in the upstream's place; a gRPC request gets `grpc` and any other request `plain`."""

    plain: Respond
    grpc: Respond


@dataclass(frozen=True, slots=True)
class NativeDrop:
    """End the exchange without a response."""


@dataclass(frozen=True, slots=True)
class Detour:
    """Not native: requests go through workers, which perform the fault. `why` is the reason."""

    why: str


type Native = NativeDelay | NativeResponse | NativeDrop
type NativeOrDetour = Native | Detour


def native_fault(rule: FaultRule) -> NativeOrDetour:
    """Return what Envoy does for a rule, or why it needs a detour."""
    match _without_quantiles(rule):
        case Detour() | NativeResponse() | NativeDrop() as made:
            return made
        case Delay():
            return NativeDelay(_quantiles(rule), drop=False)
        case Hang(seconds):
            return NativeDelay((seconds * 1000,) * (POINTS + 1), drop=True)
        case other:
            assert_never(other)


def _without_quantiles(rule: FaultRule) -> Detour | NativeResponse | NativeDrop | Delay | Hang:
    """Return what Envoy does, but without a delay's quantiles, which take long to compute."""
    reason = _reason_for_detour(rule)
    if reason:
        return Detour(reason)
    first = rule.fault.act(PLAIN_REQUEST, lambda: 0.0)
    match first:
        case Delay() | Hang():
            return first
        case Respond():
            return _native_response(first, rule.fault.act(_GRPC_REQUEST, lambda: 0.0))
        case Disconnect(reset=False):
            return NativeDrop()
        case Disconnect():
            return Detour("a TCP reset")
        case Throttle() | Truncate() | Rewrite() | Repeat():
            return Detour(f"`{rule.fault.name}`")
        case other:
            assert_never(other)


def _native_response(plain: Respond, grpc: Action) -> NativeResponse | Detour:
    if not isinstance(grpc, Respond):
        return Detour("an answer to some requests only")
    return NativeResponse(plain, grpc)


def _reason_for_detour(rule: FaultRule) -> str | None:
    """Return why workers perform a rule, whatever its action is; None if Envoy may perform it."""
    if rule.fault.name not in BUILT_IN:
        # A fault of another package may return another kind of action for another request.
        return f"`{rule.fault.name}`"
    if rule.when == "after":
        return "`when: after`"
    if rule.per == "message":
        return "`per: message`"
    if rule.dose.limit is not None:
        return "a dose that is counted"
    if rule.match.regex is not None:
        return "a fault's `regex`"
    return None


def _quantiles(rule: FaultRule) -> tuple[float, ...]:
    """Return POINTS + 1 delays of a rule in milliseconds, at even steps of the distribution."""
    found = []
    for step in range(POINTS + 1):
        position = min(step / POINTS, _LAST)
        action = rule.fault.act(PLAIN_REQUEST, lambda position=position: position)  # type: ignore[misc]
        if not isinstance(action, Delay):
            raise TypeError(f"{rule.fault.name} returned another action than a delay")
        found.append(action.seconds * 1000)
    return tuple(found)


def detours(experiment: Experiment) -> dict[str, str]:
    """Return the listeners where an experiment's requests go through workers, with the reason."""
    found: dict[str, str] = {}
    for rule in experiment.faults:
        if experiment.guard.max_faults is not None:
            found.setdefault(rule.at, "`guard.max_faults`")
            continue
        made = _without_quantiles(rule)
        if isinstance(made, Detour):
            found.setdefault(rule.at, made.why)
    return found


def served_by_workers(listener: Listener) -> bool:
    """Whether workers serve a listener without Envoy: it has tunnels, or raw connections."""
    return listener.forward or listener.scheme == "tcp"


def worker_listeners(sidecar: Sidecar) -> frozenset[str]:
    """Return the names of the listeners that workers serve without Envoy."""
    return frozenset(name for name, each in sidecar.listeners.items() if served_by_workers(each))


def need_regex(matches: Sequence[Match]) -> bool:
    """Whether a match has a regular expression; Lua has none, so that the supervisor checks it."""
    return any(match.regex is not None for match in matches)
