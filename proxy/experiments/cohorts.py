"""Who is in which cohort: a unit's place on the circle decides, for good.

    0 ........ e            0.5 ....... 0.5 + c           1
    [experiment)             [control)

Raising a share moves its arc's end only, so that no user changes cohorts.

A run's salt seeds one hash of the unit, xxh64. Its lower half is the place, its upper half a number
to count the user by, and the lowest bits of that are the replicate. Places are counted backwards,
for Envoy finds by itself what hashes above a threshold: who is in neither arc costs it little.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil

from xxhash import xxh64_intdigest

REPLICATES = 64
CIRCLE = 2**32
HALF = CIRCLE // 2


class Cohort(StrEnum):
    """The side of an experiment a unit is on; `BYSTANDER` is everybody else."""

    CONTROL = "control"
    EXPERIMENT = "experiment"
    BYSTANDER = "bystander"


ENROLLED = (Cohort.CONTROL, Cohort.EXPERIMENT)
"""The cohorts of an experiment."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A unit's place in one experiment."""

    experiment: str
    cohort: Cohort
    replicate: int
    user: int | None = field(default=None, compare=False)
    """A hash of the unit below 2^32, to count users by; a tag does not carry it."""


def seed_of(salt: bytes) -> int:
    """Return the seed, 64 bits, with which the units of a run are hashed."""
    return xxh64_intdigest(salt)


def position(salt: bytes, unit: bytes) -> float:
    """Where the unit stands on the circle, in [0, 1)."""
    return _place(xxh64_intdigest(unit, seed_of(salt))) / CIRCLE


def replicate(salt: bytes, unit: bytes) -> int:
    """The unit's replicate, 0 to 63, independent of its cohort."""
    return user(salt, unit) % REPLICATES


def user(salt: bytes, unit: bytes) -> int:
    """A hash of the unit below 2^32 that knows nothing of its cohort."""
    return _user(xxh64_intdigest(unit, seed_of(salt)))


def _place(digest: int) -> int:
    return ~digest & (CIRCLE - 1)


def _user(digest: int) -> int:
    return digest >> 32


def cohort_at(place: float, experiment: float, control: float) -> Cohort | None:
    """The cohort that owns a place on the circle, for shares of at most 0.5 each."""
    if place < experiment:
        return Cohort.EXPERIMENT
    if 0.5 <= place < 0.5 + control:
        return Cohort.CONTROL
    return None


@dataclass(frozen=True, slots=True)
class Arcs:
    """An experiment's claim on the circle."""

    name: str
    salt: bytes
    experiment: float
    control: float

    def claim(self, unit: bytes) -> Enrolment | None:
        """Return the unit's enrolment, None if it is in neither cohort."""
        return self.claim_of(xxh64_intdigest(unit, seed_of(self.salt)))

    def claim_of(self, digest: int) -> Enrolment | None:
        """The same of a unit's hash."""
        cohort = cohort_at(_place(digest) / CIRCLE, self.experiment, self.control)
        if cohort is None:
            return None
        number = _user(digest)
        return Enrolment(self.name, cohort, number % REPLICATES, number)

    @property
    def widest(self) -> int:
        """Where the longer arc ends, counted from the beginning of its half, of 2^31."""
        return max(ceil(share * CIRCLE) for share in (self.experiment, self.control))


def first_claim(arcs: tuple[Arcs, ...]) -> Callable[[bytes], Enrolment | None]:
    """The claim of the first arc that has one; what is the same for all units is computed once."""
    asked = tuple((seed_of(arc.salt), HALF - arc.widest, arc) for arc in arcs)

    def claim(unit: bytes) -> Enrolment | None:
        for seed, least, arc in asked:
            # As Envoy asks: most units are in neither half's arc.
            digest = xxh64_intdigest(unit, seed)
            if digest % HALF >= least:
                found = arc.claim_of(digest)
                if found is not None:
                    return found
        return None

    return claim


def salt_of(name: str, run: int) -> bytes:
    """Each run has a salt of its own, so that it meets other users."""
    return f"{name}#{run}".encode()
