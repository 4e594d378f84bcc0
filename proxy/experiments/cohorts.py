"""Assigns units (users) to cohorts, by the position of their hash on a circle.

    0 ........ e            0.5 ....... 0.5 + c           1
    [experiment)             [control)

Raising a share moves the end of its arc only, so that no user changes from cohort to cohort.

One hash is computed of each unit: xxh64 with the salt of the run as its seed. The lower 32 bits
give the position; the upper 32 bits are a number to count users by, whose lowest 6 bits are the
replicate. Positions run against the hash, because Envoy can filter by "hash above a threshold"
itself: units in neither arc then cost it little.
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
    """The cohort of a unit; units that are in no experiment are bystanders."""

    CONTROL = "control"
    EXPERIMENT = "experiment"
    BYSTANDER = "bystander"


ENROLLED = (Cohort.CONTROL, Cohort.EXPERIMENT)
"""The cohorts of an experiment."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A unit's membership of one experiment; `replicate` is 0 to 63."""

    experiment: str
    cohort: Cohort
    replicate: int
    user: int | None = field(default=None, compare=False)
    """A hash of the unit below 2^32, to count users by; None if only a tag is known."""


def seed_of(salt: bytes) -> int:
    """Return the seed of the hash of units, from the salt of a run."""
    return xxh64_intdigest(salt)


def position(salt: bytes, unit: bytes) -> float:
    """Return the position of a unit on the circle, in [0, 1)."""
    return _position(xxh64_intdigest(unit, seed_of(salt))) / CIRCLE


def replicate(salt: bytes, unit: bytes) -> int:
    """Return the replicate of a unit, 0 to 63, which is independent of its cohort."""
    return user(salt, unit) % REPLICATES


def user(salt: bytes, unit: bytes) -> int:
    """Return a hash of a unit, below 2^32, which is independent of its cohort."""
    return _user(xxh64_intdigest(unit, seed_of(salt)))


def _position(digest: int) -> int:
    return ~digest & (CIRCLE - 1)


def _user(digest: int) -> int:
    return digest >> 32


def cohort_at(at: float, experiment: float, control: float) -> Cohort | None:
    """Return the cohort whose arc has a position in [0, 1); None if neither has.

    `experiment` and `control` are the shares of the cohorts, up to 0.5 each.
    """
    if at < experiment:
        return Cohort.EXPERIMENT
    if 0.5 <= at < 0.5 + control:
        return Cohort.CONTROL
    return None


@dataclass(frozen=True, slots=True)
class Arcs:
    """The arcs of an experiment on the circle; its shares are fractions of all units."""

    name: str
    salt: bytes
    experiment: float
    control: float

    def enrolment_of(self, unit: bytes) -> Enrolment | None:
        """Return the enrolment of a unit; None if it is in neither arc."""
        return self.enrolment_of_hash(xxh64_intdigest(unit, seed_of(self.salt)))

    def enrolment_of_hash(self, digest: int) -> Enrolment | None:
        """Return the enrolment of a unit with this hash; None if it is in neither arc."""
        cohort = cohort_at(_position(digest) / CIRCLE, self.experiment, self.control)
        if cohort is None:
            return None
        number = _user(digest)
        return Enrolment(self.name, cohort, number % REPLICATES, number)

    @property
    def widest(self) -> int:
        """The length of the longer arc, of 2^31 for half of the circle."""
        return max(ceil(share * CIRCLE) for share in (self.experiment, self.control))


def first_enrolment(arcs: tuple[Arcs, ...]) -> Callable[[bytes], Enrolment | None]:
    """Return a function that enrols a unit in the first experiment whose arcs it is in.

    What is the same for all units is computed once, here.
    """
    asked = tuple((seed_of(arc.salt), HALF - arc.widest, arc) for arc in arcs)

    def enrolment_of(unit: bytes) -> Enrolment | None:
        for seed, least, arc in asked:
            # The test that Envoy makes, too: most units are in neither arc.
            digest = xxh64_intdigest(unit, seed)
            if digest % HALF >= least:
                found = arc.enrolment_of_hash(digest)
                if found is not None:
                    return found
        return None

    return enrolment_of


def salt_of(name: str, run: int) -> bytes:
    """Return the salt of a run. Each run has its own, so that it enrols other users."""
    return f"{name}#{run}".encode()
