"""The enrolled exchanges that are under way in all processes, as they reported last."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from counterfault.proxy.experiments.cohorts import REPLICATES
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import KeptEpochs, OpenKey
from counterfault.proxy.measurement.samples import Counts

type Group = tuple[str, Epoch]
"""An experiment and an epoch of its run."""


class OpenExchanges:
    """How many are under way, by process, and how many went down with processes that ended."""

    def __init__(self) -> None:
        """Begin without exchanges."""
        self._open: dict[str, dict[OpenKey, int]] = {}
        self._ended_by_us: defaultdict[OpenKey, int] = defaultdict(int)
        """Without slots: they are all zero."""

    def update(self, incarnation: str, key: OpenKey, count: int) -> None:
        """Take how many a process has under way now."""
        if count > 0:
            self._open.setdefault(incarnation, {})[key] = count
        else:
            self._open.get(incarnation, {}).pop(key, None)

    def retire(self, incarnation: str) -> None:
        """Take a process's exchanges for ended by us: it has ended, and they with it."""
        for key, count in self._open.pop(incarnation, {}).items():
            self._ended_by_us[key._replace(slot=0)] += count

    def oldest_slot(self, experiment: str, epoch: Epoch) -> int | None:
        """Return the slot in which the oldest exchange of an epoch began; None if there is none."""
        return min((key.slot for key, _ in self._of(experiment, epoch)), default=None)

    def older(
        self, experiment: str, epoch: Epoch, metric: str, cohort: str, before: int | None = None
    ) -> Counts:
        """Return how many exchanges are under way that count for a metric.

        Args:
            experiment: The name of the experiment.
            epoch: The epoch in which they began.
            metric: The name of the metric.
            cohort: Their cohort.
            before: The slot before which they began; None: any.

        Returns:
            The numbers by replicate, shape (64,).
        """
        found: Counts = np.zeros(REPLICATES)
        for key, count in self._of(experiment, epoch):
            early = before is None or key.slot < before
            if early and key.cohort == cohort and metric in key.metrics.split(","):
                found[key.replicate] += count
        return found

    def ended_by_us(self, experiment: str, epoch: Epoch, metric: str, cohort: str) -> int:
        """Return how many exchanges of a metric were under way in processes that have ended."""
        return sum(
            count
            for key, count in self._ended_by_us.items()
            if (key.experiment, key.epoch, key.cohort) == (experiment, epoch, cohort)
            and metric in key.metrics.split(",")
        )

    def forget_others(self, kept: KeptEpochs) -> None:
        """Drop the exchanges of all epochs but these."""
        for counts in (self._ended_by_us, *self._open.values()):
            for key in [key for key in counts if not kept.keeps(key)]:
                del counts[key]

    def _of(self, experiment: str, epoch: Epoch) -> Iterator[tuple[OpenKey, int]]:
        for counts in self._open.values():
            for key, count in counts.items():
                if key.experiment == experiment and key.epoch == epoch:
                    yield key, count
