"""How an act ended, by the API's account of its run."""

from dataclasses import dataclass

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.demo.scenarios import Scenario
from counterfault.proxy.models.overview import ExperimentSummary


@dataclass(frozen=True, slots=True)
class Outcome:
    """An act and what became of its hypothesis."""

    act: Scenario
    seen: ExperimentSummary

    @property
    def result(self) -> Result:
        return self.seen.verdict.result

    @property
    def reason(self) -> str:
        return self.seen.verdict.reason

    @property
    def performed(self) -> int:
        return sum(fault.performed for fault in self.seen.faults)

    @property
    def as_foretold(self) -> bool:
        return self.result is self.act.foretold
