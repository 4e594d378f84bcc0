"""Who is in which cohort: shares, stickiness, independence."""

from itertools import product
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from counterfault.proxy.experiments.cohorts import (
    CIRCLE,
    HALF,
    REPLICATES,
    Arcs,
    Cohort,
    cohort_at,
    first_enrolment,
    position,
    replicate,
    salt_of,
    seed_of,
    user,
)

UNITS = [f"user-{i}".encode() for i in range(100_000)]
shares = st.floats(0.0001, 0.5)
units = st.binary(min_size=1, max_size=300)


def cohort(unit: bytes, share: float, name: str = "x", run: int = 1) -> Cohort | None:
    enrolment = Arcs(name, salt_of(name, run), share, share).enrolment_of(unit)
    return enrolment.cohort if enrolment else None


@given(st.binary(max_size=50), units)
def test_one_hash_is_place_user_and_replicate(salt: bytes, unit: bytes) -> None:
    digest = xxh64_intdigest(unit, xxh64_intdigest(salt))
    assert position(salt, unit) == (CIRCLE - 1 - digest % CIRCLE) / CIRCLE
    assert user(salt, unit) == digest >> 32
    assert replicate(salt, unit) == (digest >> 32) % REPLICATES


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
def test_each_cohort_has_its_share_within_four_standard_errors(share: float) -> None:
    cohorts = [cohort(unit, share) for unit in UNITS]
    error = sqrt(share * (1 - share) / len(UNITS))
    for side in (Cohort.CONTROL, Cohort.EXPERIMENT):
        assert abs(cohorts.count(side) / len(UNITS) - share) < 4 * error


@given(units, shares)
def test_a_unit_stays_in_its_cohort(unit: bytes, share: float) -> None:
    assert cohort(unit, share) == cohort(bytes(bytearray(unit)), share)


@given(units, shares, shares)
def test_raising_a_share_moves_nobody_between_cohorts(unit: bytes, a: float, b: float) -> None:
    low, high = sorted((a, b))
    before, after = cohort(unit, low), cohort(unit, high)
    assert before is None or after == before


@given(st.floats(0, 1, exclude_max=True), shares, shares)
def test_control_and_experiment_are_disjoint(place: float, e: float, c: float) -> None:
    assert (place < e) + (0.5 <= place < 0.5 + c) <= 1
    expected = (
        Cohort.EXPERIMENT if place < e else Cohort.CONTROL if 0.5 <= place < 0.5 + c else None
    )
    assert cohort_at(place, e, c) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", 1), ("b", 1)), (("a", 1), ("a", 2))],
    ids=["across experiments", "across runs"],
)
def test_cohorts_are_independent(one: tuple[str, int], other: tuple[str, int]) -> None:
    pairs = [(cohort(u, 0.5, *one), cohort(u, 0.5, *other)) for u in UNITS]
    error = sqrt(0.25 * 0.75 / len(UNITS))
    sides = (Cohort.CONTROL, Cohort.EXPERIMENT)
    for pair in product(sides, sides):
        assert abs(pairs.count(pair) / len(UNITS) - 0.25) < 4 * error


def test_replicates_are_even_and_independent_of_the_cohort() -> None:
    counts = {side: [0] * REPLICATES for side in (Cohort.CONTROL, Cohort.EXPERIMENT)}
    for unit in UNITS:
        enrolment = Arcs("x", b"x#1", 0.5, 0.5).enrolment_of(unit)
        assert enrolment is not None
        counts[enrolment.cohort][enrolment.replicate] += 1
    for cells in counts.values():
        expected = sum(cells) / REPLICATES
        chi2 = sum((n - expected) ** 2 / expected for n in cells)
        # 63 degrees of freedom: mean 63, standard deviation 11.2.
        assert chi2 < 63 + 5 * 11.2


@given(units)
def test_any_bytes_are_an_id(unit: bytes) -> None:
    assert 0 <= position(b"x#1", unit) < 1
    assert 0 <= replicate(b"x#1", unit) < REPLICATES


@pytest.mark.parametrize(
    ("salt", "unit", "place"),
    [
        (b"", b"", 0xE04A26A3),
        (b"x#1", b"ada", 0x4F3BFC90),
        (b"x#1", "用户-17".encode(), 0x4724CF35),
    ],
)
def test_places_stay_where_they_are(salt: bytes, unit: bytes, place: int) -> None:
    """A release that moved users would mix the cohorts of a run that it takes over."""
    assert position(salt, unit) * CIRCLE == place


@given(units, shares, shares)
def test_who_is_in_an_arc_is_above_the_threshold(unit: bytes, e: float, c: float) -> None:
    arcs = Arcs("x", b"x#1", e, c)
    above = xxh64_intdigest(unit, seed_of(b"x#1")) % HALF >= HALF - arcs.widest
    assert above or arcs.enrolment_of(unit) is None
    assert above == (arcs.enrolment_of(unit) is not None) or e != c


@given(units, st.lists(st.tuples(shares, shares), max_size=5))
def test_the_first_enrolment_is_the_first_arcs(
    unit: bytes, sizes: list[tuple[float, float]]
) -> None:
    arcs = tuple(Arcs(f"e{i}", f"e{i}#1".encode(), *size) for i, size in enumerate(sizes))
    expected = next((e for arc in arcs if (e := arc.enrolment_of(unit)) is not None), None)
    assert first_enrolment(arcs)(unit) == expected
