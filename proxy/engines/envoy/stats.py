"""What Envoy counts by itself: the exchanges of bystanders, and failures of our program."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from proxy import tally
from proxy.cohorts import Cohort
from proxy.engines.envoy.names import SPACE
from proxy.tally import DURATION_BUCKETS, Key, Rows

# The last one holds what is longer than all that is exported.
BUCKETS = (*(round(bound * 1e6, 3) for bound in DURATION_BUCKETS), 1e13)
WANTED = rf"^({SPACE}\.|http\.[^.]*\.lua\.errors$)"
_REQUESTS = re.compile(rf"{SPACE}\.([^.]+)\.requests\.code\.(\d+)\.flags\.(.*)")
_SUM = re.compile(rf"{SPACE}\.([^.]+)\.us")
_DURATION = re.compile(rf"{SPACE}\.([^.]+)\.duration")
_ERRORS = re.compile(r"http\.[^.]+\.lua\.errors")
# Response flags of an answer that was not whole: of a client that left, of a stream that stalled.
_CLIENT = frozenset({"DC", "DR", "SI", "LR", "DPE"})
# And of an upstream that broke off. Before its head that is a 5xx of Envoy's, which is whole.
_UPSTREAM = frozenset({"UC", "UR", "UPE", "UMSDR", "UT"})


def rows(stats: Iterable[Mapping[str, Any]]) -> Rows:
    """Cumulative counts, as the admin endpoint tells them."""
    found: dict[Key, float] = {}
    for stat in stats:
        if "histograms" in stat:
            for histogram in stat["histograms"]:
                found.update(_durations(histogram))
            continue
        for key in _keys(stat["name"]):
            scale = 1e-6 if key[0] == tally.SECONDS_SUM else 1
            found[key] = found.get(key, 0) + stat["value"] * scale
    return list(found.items())


def _keys(name: str) -> Iterable[Key]:
    bystander = ("", Cohort.BYSTANDER)
    if seen := _REQUESTS.fullmatch(name):
        yield tally.requests(seen[1], *bystander, tally.code_of(_status(int(seen[2]), seen[3])))
    elif seen := _SUM.fullmatch(name):
        yield tally.seconds_sum(seen[1], *bystander)
    elif _ERRORS.fullmatch(name):
        yield tally.internal("assign")


def _status(code: int, flags: str) -> int | None:
    """The status of a whole answer."""
    told = frozenset(flags.split(","))
    if code == 101:
        return code
    if code == 0 or told & _CLIENT or (code < 500 and told & _UPSTREAM):
        return None
    return code


def _durations(histogram: Mapping[str, Any]) -> Iterable[tuple[Key, float]]:
    name = _DURATION.fullmatch(histogram["name"])
    below = 0
    for bucket in histogram["buckets"] if name else ():
        index = bisect_left(BUCKETS, bucket["upper_bound"] * (1 - 1e-6))
        count, below = bucket["cumulative"] - below, bucket["cumulative"]
        if name and count:
            key = (tally.SECONDS, name[1], "", Cohort.BYSTANDER, index)
            yield key, count
