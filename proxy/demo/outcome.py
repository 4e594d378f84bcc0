"""How an act ended, by the API's account of its run."""

from dataclasses import dataclass
from typing import Any

from counterfault.proxy.analysis.verdict import Result
from counterfault.proxy.demo.scenarios import Scenario

type Seen = dict[str, Any]
"""An experiment as the API has it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An act and what became of its hypothesis."""

    act: Scenario
    seen: Seen

    @property
    def result(self) -> Result:
        return Result(self.seen["verdict"]["result"])

    @property
    def reason(self) -> str:
        reason: str = self.seen["verdict"]["reason"]
        return reason

    @property
    def performed(self) -> int:
        return sum(fault["performed"] for fault in self.seen["faults"])

    @property
    def as_foretold(self) -> bool:
        return self.result is self.act.foretold
