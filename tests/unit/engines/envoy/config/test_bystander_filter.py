"""Whom Envoy leaves alone without asking the program: the matcher as it is compiled."""

from counterfault.proxy.config.sidecar import UnitSource
from counterfault.proxy.engines.envoy.config.bystander_filter import maybe_enrolled
from counterfault.proxy.experiments.cohorts import HALF, Arcs, salt_of, seed_of


def test_a_request_is_asked_about_whose_hash_is_above_the_longer_arcs_threshold() -> None:
    arcs = Arcs("x", salt_of("x", 1), 0.01, 0.25)
    (hashed, comma, *tags) = maybe_enrolled([UnitSource(header="x-user")], [arcs])["or_matcher"][
        "predicate"
    ]
    matcher = hashed["single_predicate"]["custom_match"]["typed_config"]
    assert matcher["threshold"] == HALF / 2
    assert matcher["modulo"] == HALF
    assert matcher["seed"] == str(seed_of(b"x#1"))
    assert comma["single_predicate"]["value_match"] == {"contains": ","}
    assert len(tags) == 3


def test_without_an_experiment_tags_alone_are_asked_about() -> None:
    tags = maybe_enrolled([UnitSource(header="x-user")], [])["or_matcher"]["predicate"]
    names = [t["single_predicate"]["input"]["name"] for t in tags]
    assert names == ["x-counterfault", "x_counterfault", "baggage"]
