"""`duplicate`: the upstream gets the request several times."""

from typing import override

from pydantic import Field

from counterfault.proxy.faults.actions import Action, Repeat
from counterfault.proxy.faults.base import Fault, Random
from counterfault.proxy.values.request import Request


class Duplicate(Fault, name="duplicate", scalar="times"):
    """The request is repeated, as by a network that loses an answer; the client gets one answer."""

    stage = "around"
    unsafe = "does the work more than once"
    times: int = Field(ge=2, le=5, description="How often the upstream sees it, 2 to 5")

    @override
    def act(self, request: Request, random: Random) -> Action:
        return Repeat(self.times)

    @override
    def describe(self) -> str:
        return f"duplicate, {self.times} times in all"
