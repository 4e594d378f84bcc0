"""`bandwidth`: bodies are transferred no faster than over a slow link."""

from typing import override

from pydantic import Field, model_validator

from counterfault.proxy.faults.actions import Action, Pace, Throttle
from counterfault.proxy.faults.base import Fault, Random
from counterfault.proxy.values.request import Request
from counterfault.proxy.values.units import Rate, human_size

# Seconds between two portions: often enough for the rate to look even.
_STEP = 0.02


class Bandwidth(Fault, name="bandwidth", scalar="down"):
    """Bodies are paced; every request has a link of its own."""

    stage = "around"
    tcp = True
    down: Rate | None = Field(default=None, description="Towards the client, 1B/s to 1GB/s")
    up: Rate | None = Field(default=None, description="Towards the upstream, 1B/s to 1GB/s")

    @model_validator(mode="after")
    def _some(self) -> "Bandwidth":
        if self.down is None and self.up is None:
            raise ValueError("must have down, up or both")
        return self

    @override
    def act(self, request: Request, random: Random) -> Action:
        return Throttle(_pace(self.up), _pace(self.down))

    @override
    def describe(self) -> str:
        rates = ((self.down, "down"), (self.up, "up"))
        said = ", ".join(f"{human_size(rate)}/s {way}" for rate, way in rates if rate is not None)
        return f"bandwidth {said}"


def _pace(rate: float | None) -> Pace | None:
    if rate is None:
        return None
    size = max(1, round(rate * _STEP))
    return Pace(size, size / rate)
