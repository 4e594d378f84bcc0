"""The possible results of an experiment; apart from the analysis, so that clients need no numpy."""

from enum import StrEnum


class Result(StrEnum):
    """What became of a hypothesis."""

    HELD = "held"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"
