"""Which users a run has met, in bounded memory: an exact random sample, the same for both cohorts.

Kept are the users whose hash is below a threshold; when they are too many, it is halved. The hash
knows nothing of the cohort, so that what is kept has the cohorts' true proportion.
"""

from dataclasses import dataclass, field

from counterfault.proxy.experiments.cohorts import CIRCLE, Cohort

MOST = 2**14


@dataclass(slots=True)
class UserSample:
    """Hashes are whole numbers below 2^32; merging is adding the other's, in any order.

    `most`: two or more, since a hash of zero is below every threshold, once in each cohort.
    """

    most: int = MOST
    threshold: int = CIRCLE
    control: set[int] = field(default_factory=set)
    experiment: set[int] = field(default_factory=set)

    def add(self, cohort: Cohort, user: int) -> bool:
        """True if this user is new and is kept."""
        side = self.of(cohort)
        if user >= self.threshold or user in side:
            return False
        side.add(user)
        while len(self.control) + len(self.experiment) > self.most:
            self.threshold //= 2
            self.control = {u for u in self.control if u < self.threshold}
            self.experiment = {u for u in self.experiment if u < self.threshold}
        return True

    def of(self, cohort: Cohort) -> set[int]:
        """The users of a cohort that are kept."""
        return self.experiment if cohort is Cohort.EXPERIMENT else self.control

    def estimate(self, cohort: Cohort) -> int:
        """How many users of a cohort there have been; exact until the threshold has moved."""
        return round(len(self.of(cohort)) * CIRCLE / self.threshold)
