"""How an act ended, by the API's summary of its run."""

from dataclasses import dataclass

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.demo.scenarios import Scenario
from counterfault.proxy.models.overview import ExperimentSummary


@dataclass(frozen=True, slots=True)
class Outcome:
    """An act and the verdict on its hypothesis."""

    act: Scenario
    seen: ExperimentSummary

    @property
    def result(self) -> Result:
        """The verdict in one word."""
        return self.seen.verdict.result

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, in a sentence."""
        return self.seen.verdict.reason

    @property
    def performed(self) -> int:
        """How many faults happened."""
        return sum(fault.performed for fault in self.seen.faults)

    @property
    def as_foretold(self) -> bool:
        """Whether the verdict is the one that the act announced."""
        return self.result is self.act.foretold
