"""What is known at one moment of a metric that a Prometheus server holds."""

from dataclasses import dataclass

# A plain threshold is passed when this many seconds of answers in a row are beyond it.
LASTING = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts are in the metric's sample; here is what is not."""

    plain: bool = False
    """One number per cohort, which cannot be tested."""
    levels: tuple[float, float] | None = None
    """Those numbers, control's and experiment's, while the faults were on."""
    effect: float | None = None
    """By how much the experiment is worse, as a fraction of control's; None: not to be told."""
    lasting: float = 0.0
    """How many seconds of answers in a row were beyond the tolerance."""
    no_data: str = ""
    """Why there is no data now; empty: there is."""
    overdue: bool = False
    """Whether a required metric has had none for too long."""

    @property
    def beyond(self) -> bool:
        """Whether a plain threshold has been passed for long enough."""
        return self.lasting >= LASTING


def effect(levels: tuple[float, float], lower_is_worse: bool) -> float | None:
    """By how much the experiment is worse, as a fraction of control's level."""
    control, experiment = levels
    if control <= 0:
        return None
    return (control - experiment if lower_is_worse else experiment - control) / control
