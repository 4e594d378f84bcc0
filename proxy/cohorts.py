"""Who is in which cohort: a unit's place on the hash ring decides, for good.

    0 ........ e            0.5 ....... 0.5 + c           1
    [experiment)             [control)

Raising a share moves its arc's end only, so that nobody changes cohorts.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from math import ceil

from hashring import HashRing

try:
    # Twice as quick as OpenSSL's for so few bytes.
    from _md5 import md5 as _md5  # type: ignore[import-not-found]
except ImportError:
    _md5 = partial(hashlib.md5, usedforsecurity=False)

REPLICATES = 64
CIRCLE = 2**32


class Cohort(StrEnum):
    """The side of an experiment a unit is on; `BYSTANDER` is everybody else."""

    CONTROL = "control"
    EXPERIMENT = "experiment"
    BYSTANDER = "bystander"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A unit's place in one experiment."""

    experiment: str
    cohort: Cohort
    replicate: int
    user: int | None = field(default=None, compare=False)
    """A hash of the unit below 2^32, to count users by; a tag does not carry it."""


class ByteRing(HashRing):  # type: ignore[misc]
    """hashring's ring for raw bytes too, since user ids need not be text."""

    def _hash_digest(self, key: str | bytes) -> bytes:
        raw = key.encode() if isinstance(key, str) else key
        return hashlib.md5(raw, usedforsecurity=False).digest()


_gen_key = ByteRing([]).gen_key


def position(salt: bytes, unit: bytes) -> float:
    """Where the unit stands on the circle, in [0, 1)."""
    return int(_gen_key(salt + b":" + unit)) / CIRCLE


def replicate(salt: bytes, unit: bytes) -> int:
    """The unit's replicate, 0 to 63, independent of its cohort."""
    return int(_gen_key(salt + b":replicate:" + unit)) % REPLICATES


def user(salt: bytes, unit: bytes) -> int:
    """A hash of the unit below 2^32 that knows nothing of its cohort or replicate."""
    return int.from_bytes(_md5(salt + b":replicate:" + unit).digest()[4:8], "little")


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
        cohort = cohort_at(position(self.salt, unit), self.experiment, self.control)
        if cohort is None:
            return None
        return Enrolment(self.name, cohort, replicate(self.salt, unit), user(self.salt, unit))


def first_claim(arcs: tuple[Arcs, ...]) -> Callable[[bytes], Enrolment | None]:
    """The claim of the first arc that has one; what is the same for all units is computed once."""
    asked = tuple((arc.salt + b":", _highest_bytes(arc), arc) for arc in arcs)

    def claim(unit: bytes) -> Enrolment | None:
        for salted, near, arc in asked:
            # The highest byte of hashring's position: it is in no arc for most units.
            if _md5(salted + unit).digest()[3] in near:
                found = arc.claim(unit)
                if found is not None:
                    return found
        return None

    return claim


def _highest_bytes(arc: Arcs) -> frozenset[int]:
    """Of all places that the arc's cohorts own; others begin with them too."""
    ends = ((0.0, arc.experiment), (0.5, 0.5 + arc.control))
    return frozenset(b for start, end in ends for b in range(int(start * 256), ceil(end * 256)))


def salt_of(name: str, run: int) -> bytes:
    """Each run has a salt of its own, so that it meets other users."""
    return f"{name}#{run}".encode()
