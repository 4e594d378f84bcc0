"""`slow_start`: the body of the response comes in small portions with pauses."""

from typing import override

from pydantic import Field, field_validator

from counterfault.proxy.faults.actions import Action, Pace, Throttle
from counterfault.proxy.faults.base import Fault, Random
from counterfault.proxy.values.request import Request
from counterfault.proxy.values.units import Positive, Size, human, human_size


class SlowStart(Fault, name="slow_start"):
    """The answer's body trickles: some bytes, a pause, some more."""

    stage = "around"
    chunk: Size = Field(description="So many bytes at a time, 1B to 1MiB")
    delay: Positive = Field(le=60.0, description="The pause after them, up to 60s")

    @field_validator("chunk")
    @classmethod
    def _not_all(cls, value: int) -> int:
        if value > 1 << 20:
            raise ValueError("must be at most 1MiB")
        return value

    @override
    def act(self, request: Request, random: Random) -> Action:
        return Throttle(None, Pace(self.chunk, self.delay))

    @override
    def describe(self) -> str:
        return f"slow_start, {human_size(self.chunk)} every {human(self.delay)}"
