"""A matcher with which Envoy recognises bystanders itself: entering Lua costs a tenth of its time.

The matcher may take a bystander for a user who may be enrolled, never the other way round. The Lua
program decides about all requests that the matcher lets through to it.
"""

from collections.abc import Iterable, Iterator, Sequence

from counterfault.proxy.config.sidecar import UnitSource
from counterfault.proxy.engines.envoy.config.names import Json, typed
from counterfault.proxy.experiments.cohort_tag import HEADER, MEMBER
from counterfault.proxy.experiments.cohorts import HALF, Arcs, seed_of

_TAGS = (HEADER.decode(), HEADER.decode().replace("-", "_"))


def maybe_enrolled(unit: Sequence[UnitSource], arcs: Sequence[Arcs]) -> Json:
    """Return a predicate of the requests that may be enrolled: by their unit, or by a tag.

    Args:
        unit: Where a request carries its user's id, in the order in which to look.
        arcs: The arcs of all live experiments.
    """
    either = [*(_enrolled(unit, arcs) if arcs else ()), *_tagged()]
    return {"or_matcher": {"predicate": either}}


def _enrolled(unit: Sequence[UnitSource], arcs: Iterable[Arcs]) -> Iterator[Json]:
    seeds = [(seed_of(arc.salt), HALF - arc.widest) for arc in arcs]
    before: list[Json] = []
    for source in unit:
        if source.header is not None:
            yield from (_hashed(source.header, HALF, *seed) for seed in seeds)
            # Envoy joins repeated headers with commas and hashes all; the unit is the first alone.
            yield _header(source.header, {"contains": ","})
            before.append(_absent(source.header))
        elif source.cookie is not None:
            yield _all([_header("cookie", {"contains": f"{source.cookie}="}), *before])
        elif source.baggage is not None:
            yield _all([_header("baggage", {"contains": source.baggage}), *before])


def _tagged() -> Iterator[Json]:
    yield from (_present(name) for name in _TAGS)
    yield _header("baggage", {"contains": MEMBER.decode()})


def _absent(name: str) -> Json:
    empty = _header(name, {"exact": ""})
    return {"or_matcher": {"predicate": [{"not_matcher": _present(name)}, empty]}}


def _present(name: str) -> Json:
    """Match any value of the header, by its hash: a regular expression matches UTF-8 only."""
    return _hashed(name, 1, 0, 0)


def _hashed(name: str, modulo: int, seed: int, least: int) -> Json:
    """Match a header whose hash with `seed`, modulo `modulo`, is at least `least`."""
    matcher = typed(
        "extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
        seed=str(seed),  # protobuf's JSON writes 64-bit integers as strings
        modulo=modulo,
        threshold=least,
    )
    found = {"name": "consistent_hashing", "typed_config": matcher}
    return {"single_predicate": {"input": _input(name), "custom_match": found}}


def _header(name: str, value: Json) -> Json:
    return {"single_predicate": {"input": _input(name), "value_match": value}}


def _input(name: str) -> Json:
    return {
        "name": name,
        "typed_config": typed("type.matcher.v3.HttpRequestHeaderMatchInput", header_name=name),
    }


def _all(predicates: list[Json]) -> Json:
    if len(predicates) == 1:
        return predicates[0]
    return {"and_matcher": {"predicate": predicates}}
