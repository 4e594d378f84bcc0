"""The sample ratio: do the cohorts have as many users each as their shares say?

If not, the comparison is not between like and like, whatever it says (Fabijan et al., KDD 2019).
"""

from dataclasses import dataclass
from math import lgamma, log

ALPHA = 0.001
# How sure the alternatives are of the ratio that was asked for. They are 1.6 points away from 50 %,
# give or take: of what as many users as are kept can tell, that is found soonest.
_CONCENTRATION = 1e3


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """First-seen users of both cohorts, as far as they are kept; `share` is the experiment's."""

    control: int
    experiment: int
    share: float

    @property
    def evidence(self) -> float:
        """A beta-binomial e-value against the share, as a logarithm.

        Anytime-valid, since each new user is a toss of the same coin (Lindon & Malek, NeurIPS
        2022). Requests would not do: those of one user are not tossed apart.
        """
        a, b = _CONCENTRATION * self.share, _CONCENTRATION * (1 - self.share)
        mixture = _log_beta(a + self.experiment, b + self.control) - _log_beta(a, b)
        asked = self.experiment * log(self.share) + self.control * log(1 - self.share)
        return mixture - asked

    @property
    def off(self) -> bool:
        return self.evidence >= log(1 / ALPHA)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
