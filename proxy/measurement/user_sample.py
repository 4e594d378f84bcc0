"""The distinct users of a run, in bounded memory: a random sample with one rate for both cohorts.

Users whose hash is below a threshold are kept; when they become too many, the threshold is halved
(adaptive sampling: Flajolet, On Adaptive Sampling, Computing 43, 1990). The hash is independent of
the cohort, so that the users that are kept have the true proportion of the cohorts.
"""

from dataclasses import dataclass, field

from counterfault.proxy.experiments.cohorts import CIRCLE, Cohort

MOST = 2**14


@dataclass(slots=True)
class UserSample:
    """The users that are kept, as hashes below 2^32; `most` of them at most.

    Samples are merged by adding the users of one to the other, in any order. `most` must be at
    least two: a hash of zero is below every threshold, and a user of each cohort can have it.
    """

    most: int = MOST
    threshold: int = CIRCLE
    control: set[int] = field(default_factory=set)
    experiment: set[int] = field(default_factory=set)

    def add(self, cohort: Cohort, user: int) -> bool:
        """Add a user by a hash below 2^32. Returns True if the user is new and is kept."""
        side = self.of(cohort)
        if user >= self.threshold or user in side:
            return False
        side.add(user)
        while len(self.control) + len(self.experiment) > self.most:
            self.threshold //= 2
            self.control = {u for u in self.control if u < self.threshold}
            self.experiment = {u for u in self.experiment if u < self.threshold}
        return True

    def copy(self) -> "UserSample":
        """Return a sample of the same users, which does not change with this one."""
        return UserSample(self.most, self.threshold, set(self.control), set(self.experiment))

    def of(self, cohort: Cohort) -> set[int]:
        """Return the users of a cohort that are kept."""
        return self.experiment if cohort is Cohort.EXPERIMENT else self.control

    def estimate(self, cohort: Cohort) -> int:
        """Return an estimate of the number of users of a cohort; exact until `most` was reached."""
        return round(len(self.of(cohort)) * CIRCLE / self.threshold)
