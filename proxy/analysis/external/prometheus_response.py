"""Parses responses of Prometheus' query API: counts by series and replicate, or one number."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.values.units import shown

# The most series that a response for a cohort may have: 64 replicates of 100 instances.
MOST_SERIES = 64 * 100
_SAID = 200

type Series = tuple[tuple[str, str], ...]


class NoPrometheusAnswer(Exception):
    """A response that cannot be used; the message is one line, without secrets."""


@dataclass(frozen=True, slots=True)
class Level:
    """One number for the whole cohort."""

    value: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Cumulative counts by the labels of their series, of which `replicate` is one."""

    by_series: Mapping[Series, float]


type Answer = Counts | Level


def parse_response(status: int, body: bytes) -> Answer:
    """Parse the HTTP response to an instant query. Raises NoPrometheusAnswer."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise NoPrometheusAnswer(f"HTTP {status}, not the JSON of Prometheus' API") from e
    if not isinstance(said, dict) or said.get("status") != "success" or status != 200:
        raise NoPrometheusAnswer(f"HTTP {status}{_error(said)}")
    # Warnings mean that series may be missing, which looks like counts that fall and rise.
    if warnings := said.get("warnings"):
        raise NoPrometheusAnswer(f"it warns: {line(warnings)}")
    try:
        data = said["data"]
        return _found(data["resultType"], data["result"])
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise NoPrometheusAnswer("an answer of an unknown form") from e


def replicate_of(series: Series) -> int:
    """Return the replicate of a series, 0 to 63. Raises NoPrometheusAnswer."""
    said = dict(series)["replicate"]
    number = int(said) if said.isascii() and said.isdecimal() and len(said) < 4 else REPLICATES
    if number >= REPLICATES:
        raise NoPrometheusAnswer(f"replicate must be 0 to {REPLICATES - 1}, not {shown(said)}")
    return number


def _found(kind: str, result: Any) -> Answer:
    match kind:
        case "scalar":
            return Level(_number(result))
        case "vector":
            return _vector(result)
        case _:
            raise NoPrometheusAnswer(f"an instant vector or a scalar is needed, not {shown(kind)}")


def _vector(result: list[Any]) -> Answer:
    if not result:
        raise NoPrometheusAnswer("no series matches")
    if len(result) > MOST_SERIES:
        raise NoPrometheusAnswer(f"{len(result)} series; at most {MOST_SERIES} are read")
    series = {tuple(sorted(row["metric"].items())): _number(row["value"]) for row in result}
    if all("replicate" in row["metric"] for row in result):
        for labels, value in series.items():
            replicate_of(labels)
            if value < 0:
                raise NoPrometheusAnswer("a cumulative count is below zero")
        return Counts(series)
    if len(result) > 1:
        raise NoPrometheusAnswer(
            f"{len(result)} series; one is needed, or each with a label `replicate`"
        )
    return Level(*series.values())


def _number(value: list[Any]) -> float:
    """Return the value of a sample such as `[1700000000.123, "42"]`."""
    _, text = value
    number = float(text)
    if not isfinite(number):
        raise NoPrometheusAnswer(f"its value is {text}")
    return number


def _error(said: Any) -> str:
    """Return the error of a response, such as `: bad_data: parse error`; empty without one."""
    if not isinstance(said, dict):
        return ""
    return "".join(f": {line(said[key])}" for key in ("errorType", "error") if said.get(key))


def line(text: Any) -> str:
    """Return a text of another program as one line of at most 200 characters."""
    words = "; ".join(map(str, text)) if isinstance(text, list) else str(text)
    said = "".join(c if c.isprintable() else " " for c in words)
    return said if len(said) <= _SAID else said[: _SAID - 1] + "…"
