"""The state, at one moment, of a metric that Prometheus measures."""

from dataclasses import dataclass

# A plain metric is harmed when its results have been beyond the tolerance for so many seconds.
LASTING = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of an external metric, besides its events, which are in its sample."""

    plain: bool = False
    """Whether there is one number per cohort only, which cannot be tested statistically."""
    levels: tuple[float, float] | None = None
    """The last such numbers of control and experiment while the faults were on."""
    effect: float | None = None
    """By how much the experiment is worse, as a fraction of control's level; None: unknown."""
    lasting: float = 0.0
    """For how many seconds all results have been beyond the tolerance."""
    no_data: str = ""
    """Why there is no data now; empty if there is."""
    overdue: bool = False
    """Whether a required metric has had no data for too long."""

    @property
    def beyond(self) -> bool:
        """Whether a plain metric is harmed."""
        return self.lasting >= LASTING


def effect(levels: tuple[float, float], lower_is_worse: bool) -> float | None:
    """Return by how much the experiment is worse, as a fraction of control's level.

    Returns None if control's level is not above zero.
    """
    control, experiment = levels
    if control <= 0:
        return None
    return (control - experiment if lower_is_worse else experiment - control) / control
