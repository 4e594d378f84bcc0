"""`truncate`: the body of the response ends early."""

from typing import override

from pydantic import Field, field_validator, model_validator

from counterfault.proxy.faults.actions import Action, Truncate
from counterfault.proxy.faults.base import Fault, Random
from counterfault.proxy.values.request import Request
from counterfault.proxy.values.units import Share, Size, human_size, percent


class Truncation(Fault, name="truncate", scalar="after"):
    """The body is shorter than promised: the connection closes, or RST_STREAM, in its midst."""

    stage = "after"
    tcp = True
    after: Size | None = Field(default=None, description="So many bytes come through, 1B to 1GB")
    share: Share | None = Field(
        default=None, description="This share of the body comes through, 0% to below 100%"
    )

    @field_validator("share")
    @classmethod
    def _not_all(cls, value: float | None) -> float | None:
        if value is not None and value >= 1:
            raise ValueError("must be below 100%")
        return value

    @model_validator(mode="after")
    def _one(self) -> "Truncation":
        if (self.after is None) == (self.share is None):
            raise ValueError("must have one of after and share")
        return self

    @override
    def act(self, request: Request, random: Random) -> Action:
        return Truncate(self.after, self.share)

    @override
    def describe(self) -> str:
        if self.after is not None:
            return f"truncate after {human_size(self.after)}"
        return f"truncate after {percent(self.share or 0)} of the body"
