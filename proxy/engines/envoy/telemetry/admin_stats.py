"""What Envoy counts by itself: the exchanges of bystanders, and failures of our program."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from counterfault.proxy.engines.envoy.config.histogram_buckets import _EXPORTED, BUCKETS
from counterfault.proxy.engines.envoy.config.names import SPACE
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

# Microseconds, a quarter of an octave apart, so that a sum can be told from them: counting it apart
# would cost Envoy 3 % more of its time. The last one holds what is longer than all exported ones.
WANTED = rf"^({SPACE}\.|http\.[^.]*\.lua\.errors$)"
_REQUESTS = re.compile(rf"{SPACE}\.([^.]+)\.requests\.code\.(\d+)\.flags\.(.*)")
_DURATION = re.compile(rf"{SPACE}\.([^.]+)\.duration")
_ERRORS = re.compile(r"http\.[^.]+\.lua\.errors")
# Response flags of an answer that was not whole: of a client that left, of a stream that stalled.
_CLIENT = frozenset({"DC", "DR", "SI", "LR", "DPE"})
# And of an upstream that broke off. Before its head that is a 5xx of Envoy's, which is whole.
_UPSTREAM = frozenset({"UC", "UR", "UPE", "UMSDR", "UT"})


def rows(stats: Iterable[Mapping[str, Any]]) -> Rows:
    """Cumulative counts, as the admin endpoint tells them."""
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
    """The status of a whole answer."""
    told = frozenset(flags.split(","))
    if code == 101:
        return code
    if code == 0 or told & _CLIENT or (code < 500 and told & _UPSTREAM):
        return None
    return code


def _durations(histogram: Mapping[str, Any]) -> Iterator[tuple[Key, float]]:
    """Events by exported bucket, and the sum of their durations, taken to be in the middle."""
    name = _DURATION.fullmatch(histogram["name"])
    if name is None:
        return
    who = (name[1], "", Cohort.BYSTANDER)
    low, below = 0.0, 0
    for bucket in histogram["buckets"]:
        count, below = bucket["cumulative"] - below, bucket["cumulative"]
        high = bucket["upper_bound"]
        if count:
            yield DurationKey(*who, bisect_left(_EXPORTED, high * (1 - 1e-6))), count
            yield DurationSumKey(*who), count * _middle(low, high) / 1e6
        low = high


def _middle(low: float, high: float) -> float:
    """Of the last bucket, which has no end, its beginning."""
    return low if high == BUCKETS[-1] else (low + high) / 2
