"""Turns Envoy's own counters into counts: exchanges of bystanders, errors of the Lua program."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from counterfault.proxy.engines.envoy.config.histogram_buckets import BUCKETS, EXPORTED
from counterfault.proxy.engines.envoy.config.names import NAMESPACE
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.measurement.exchanges import code_of
from counterfault.proxy.measurement.keys import (
    DurationKey,
    DurationSumKey,
    InternalErrorKey,
    Key,
    RequestKey,
    Rows,
)

# The counters and histograms to ask for, as an RE2 pattern.
PATTERN = rf"^({NAMESPACE}\.|http\.[^.]*\.lua\.errors$)"
_REQUESTS = re.compile(rf"{NAMESPACE}\.([^.]+)\.requests\.code\.(\d+)\.flags\.(.*)")
_DURATION = re.compile(rf"{NAMESPACE}\.([^.]+)\.duration")
_ERRORS = re.compile(r"http\.[^.]+\.lua\.errors")
# Response flags of a response that was not whole: the client left, or the stream stalled.
_CLIENT_FLAGS = frozenset({"DC", "DR", "SI", "LR", "DPE"})
# Response flags of an upstream that broke off. If it did so before the response's head, Envoy sends
# a whole response of its own, with a status of 500 or more.
_UPSTREAM_FLAGS = frozenset({"UC", "UR", "UPE", "UMSDR", "UT"})


def rows(stats: Iterable[Mapping[str, Any]]) -> Rows:
    """Return the cumulative counts in the admin endpoint's counters and histograms."""
    found: defaultdict[Key, float] = defaultdict(float)
    for stat in stats:
        if "histograms" in stat:
            for histogram in stat["histograms"]:
                for key, value in _durations(histogram):
                    found[key] += value
        elif (counted := _key(stat["name"])) is not None:
            found[counted] += stat["value"]
    return list(found.items())


def _key(name: str) -> Key | None:
    if seen := _REQUESTS.fullmatch(name):
        code = code_of(_status(int(seen[2]), seen[3]))
        return RequestKey(seen[1], "", Cohort.BYSTANDER, code)
    return InternalErrorKey("assign") if _ERRORS.fullmatch(name) else None


def _status(code: int, flags: str) -> int | None:
    """Return the status of an exchange; None if the client got no whole response."""
    set_flags = frozenset(flags.split(","))
    if code == 101:
        return code
    if code == 0 or set_flags & _CLIENT_FLAGS or (code < 500 and set_flags & _UPSTREAM_FLAGS):
        return None
    return code


def _durations(histogram: Mapping[str, Any]) -> Iterator[tuple[Key, float]]:
    """Yield the events by exported bucket, and the sum of their durations in seconds.

    Each duration counts as the middle of its bucket. (A counter for the sum would cost Envoy 3 %
    more of its time.) Envoy's buckets are a quarter of an octave wide to keep the error small.
    """
    name = _DURATION.fullmatch(histogram["name"])
    if name is None:
        return
    who = (name[1], "", Cohort.BYSTANDER)
    low, below = 0.0, 0
    for bucket in histogram["buckets"]:
        count, below = bucket["cumulative"] - below, bucket["cumulative"]
        high = bucket["upper_bound"]
        if count:
            yield DurationKey(*who, bisect_left(EXPORTED, high * (1 - 1e-6))), count
            yield DurationSumKey(*who), count * _middle(low, high) / 1e6
        low = high


def _middle(low: float, high: float) -> float:
    """Return the middle of a bucket in microseconds; of the last one, which is open, its start."""
    return low if high == BUCKETS[-1] else (low + high) / 2
