"""A sidecar whose experiment begins anew for each test."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.programs import Sidecar, until, user


@dataclass
class Runs:
    """One run after the other, each with other users."""

    sidecar: Sidecar
    run: int = 1

    def begin(self, *faults: dict[str, Any], **more: Any) -> None:
        """Have these faults, at every listener unless they name one."""
        listeners = self.sidecar.settings["listeners"]
        rules = [
            {"at": at, **fault}
            for fault in faults
            for at in ([fault["at"]] if "at" in fault else listeners)
        ]
        self.sidecar.running(run=self.run, faults=rules, **more)

    def stop(self) -> None:
        self.sidecar.post("/api/experiments/x/stop")

    def user(self, cohort: str = "experiment", skip: int = 0) -> str:
        return user(cohort, run=self.run, skip=skip)

    def port(self, listener: str) -> int:
        return int(self.sidecar.settings["listeners"][listener]["listen"].rpartition(":")[2])

    def active(self) -> float:
        return self.sidecar.metric("counterfault_faults_active")

    def nothing_active(self) -> bool:
        return self.active() == 0

    def faults(self, **labels: str) -> float:
        return self.sidecar.metric("counterfault_faults_total", **labels)


@pytest.fixture
def world(made: Runs) -> Iterator[Runs]:
    """Each test has a run of its own, whose end lets go of whatever is left."""
    made.run += 1
    yield made
    made.stop()
    until(made.nothing_active)
