"""The test for a sample ratio mismatch: whether the cohorts have as many users as their shares say.

If they do not, the cohorts are not comparable, whatever the metrics say (Fabijan et al., Diagnosing
Sample Ratio Mismatch in Online Controlled Experiments, KDD 2019).
"""

from dataclasses import dataclass
from math import lgamma, log

ALPHA = 0.001
# The concentration of the beta prior of alternatives. They have a standard deviation of 1.6 points
# about 50 %: of what as many users as are kept can show, such a mismatch is found soonest.
_CONCENTRATION = 1e3


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The users that are kept of both cohorts; the experiment's should be a `share`, 0 to 1."""

    control: int
    experiment: int
    share: float

    @property
    def evidence(self) -> float:
        """The natural logarithm of a beta-binomial e-value against the share.

        It is valid at any time, since each new user is an independent draw (Lindon & Malek,
        Anytime-Valid Inference for Multinomial Count Data, NeurIPS 2022). Requests are not: those
        of one user are in the same cohort.
        """
        a, b = _CONCENTRATION * self.share, _CONCENTRATION * (1 - self.share)
        mixture = _log_beta(a + self.experiment, b + self.control) - _log_beta(a, b)
        asked = self.experiment * log(self.share) + self.control * log(1 - self.share)
        return mixture - asked

    @property
    def off(self) -> bool:
        """Whether there is a mismatch, with a chance of a false alarm of at most `ALPHA`."""
        return self.evidence >= log(1 / ALPHA)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
