"""Which faults Envoy performs by itself, and why the others take a detour through workers.

Pure: a rule and the limits in, a program for Lua or a reason out.
"""

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

# A distribution's quantiles are drawn from this many even steps.
POINTS = 1000
_LAST = 1 - 1e-9

PLAIN = Request(b"POST", b"", b"/", ())
_GRPC = Request(b"POST", b"", b"/", ((b"content-type", b"application/grpc"),))


@dataclass(frozen=True, slots=True)
class NativeDelay:
    """Wait; `quantiles` in milliseconds. Then go on, or end without an answer."""

    quantiles: tuple[float, ...]
    drop: bool


@dataclass(frozen=True, slots=True)
class NativeResponse:
    """Answer in the upstream's place; gRPC requests get another answer where they are meant."""

    plain: Respond
    grpc: Respond


@dataclass(frozen=True, slots=True)
class NativeDrop:
    """End the exchange without an answer."""


@dataclass(frozen=True, slots=True)
class Detour:
    """Not native."""

    why: str


type Native = NativeDelay | NativeResponse | NativeDrop
type Program = Native | Detour


def program(rule: FaultRule) -> Program:
    """What Envoy does for a rule, or why it cannot."""
    match _begun(rule):
        case Detour() | NativeResponse() | NativeDrop() as made:
            return made
        case Delay():
            return NativeDelay(_quantiles(rule), drop=False)
        case Hang(seconds):
            return NativeDelay((seconds * 1000,) * (POINTS + 1), drop=True)
        case other:
            assert_never(other)


def _begun(rule: FaultRule) -> Detour | NativeResponse | NativeDrop | Delay | Hang:
    """The program, but for the quantiles of a wait, which take long to find."""
    reason = _unfit(rule)
    if reason:
        return Detour(reason)
    first = rule.fault.act(PLAIN, lambda: 0.0)
    match first:
        case Delay() | Hang():
            return first
        case Respond():
            return _answer(first, rule.fault.act(_GRPC, lambda: 0.0))
        case Disconnect(reset=False):
            return NativeDrop()
        case Disconnect():
            return Detour("a TCP reset")
        case Throttle() | Truncate() | Rewrite() | Repeat():
            return Detour(f"`{rule.fault.name}`")
        case other:
            assert_never(other)


def _answer(plain: Respond, grpc: Action) -> NativeResponse | Detour:
    if not isinstance(grpc, Respond):
        return Detour("an answer to some requests only")
    return NativeResponse(plain, grpc)


def _unfit(rule: FaultRule) -> str | None:
    """Why workers perform a rule, whatever its action is; None if Envoy may perform it."""
    if rule.fault.name not in BUILT_IN:
        # Only of our own faults is it known that their action is of one kind for all requests.
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
    """The delays of a rule in milliseconds, at even steps of the distribution."""
    found = []
    for step in range(POINTS + 1):
        place = min(step / POINTS, _LAST)
        action = rule.fault.act(PLAIN, lambda place=place: place)  # type: ignore[misc]
        if not isinstance(action, Delay):
            raise TypeError(f"{rule.fault.name} is a delay at times only")
        found.append(action.seconds * 1000)
    return tuple(found)


def detours(experiment: Experiment) -> dict[str, str]:
    """The listeners where an experiment's requests go through workers, and why."""
    found: dict[str, str] = {}
    for rule in experiment.faults:
        if experiment.guard.max_faults is not None:
            found.setdefault(rule.at, "`guard.max_faults`")
            continue
        made = _begun(rule)
        if isinstance(made, Detour):
            found.setdefault(rule.at, made.why)
    return found


def by_workers(listener: Listener) -> bool:
    """Whether workers serve a listener by themselves: it has tunnels, or raw connections."""
    return listener.forward or listener.scheme == "tcp"


def served(sidecar: Sidecar) -> frozenset[str]:
    """The listeners that workers serve by themselves."""
    return frozenset(name for name, each in sidecar.listeners.items() if by_workers(each))


def counted(matches: Sequence[Match]) -> bool:
    """Whether one of these needs a regular expression, which the supervisor looks at."""
    return any(match.regex is not None for match in matches)
