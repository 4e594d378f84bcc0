"""Totals as workers would have counted them."""

import numpy as np

from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import DoseKey, FaultResult, Key, SteadyKey, UserKey
from counterfault.proxy.measurement.totals import Totals

COHORTS = (Cohort.CONTROL, Cohort.EXPERIMENT)


class WorkerCounts:
    """Counts for one experiment, evenly over the replicates."""

    def __init__(self, experiment: str = "x") -> None:
        self.totals = Totals()
        self._experiment = experiment
        self._so_far: dict[tuple[object, ...], float] = {}

    def add(self, epoch: str, metric: str, cohort: str, **cells: int) -> None:
        """So many events a replicate: `good=9, bad=1`."""
        for replicate in range(64):
            for cell, count in cells.items():
                self._row(
                    SteadyKey(self._experiment, Epoch(epoch), metric, cohort, replicate, cell),
                    count,
                )

    def add_both(self, epoch: str, metric: str, **cells: int) -> None:
        for cohort in COHORTS:
            self.add(epoch, metric, cohort, **cells)

    def dose(self, epoch: str, planned: int, performed: int) -> None:
        self._row(DoseKey(self._experiment, Epoch(epoch), 0, FaultResult.PLANNED), planned)
        self._row(DoseKey(self._experiment, Epoch(epoch), 0, FaultResult.PERFORMED), performed)

    def users(self, edit: str, control: int, experiment: int) -> None:
        draw = np.random.default_rng(1)
        for cohort, count in zip(COHORTS, (control, experiment), strict=True):
            hashes = draw.choice(2**32, count, replace=False)
            rows = [(UserKey(self._experiment, edit, cohort, int(h)), 1.0) for h in hashes]
            self.totals.update("w", rows)

    def _row(self, key: Key, count: float) -> None:
        self._so_far[key] = self._so_far.get(key, 0) + count
        self.totals.update("w", [(key, self._so_far[key])])
