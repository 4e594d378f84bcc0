"""The dose of a fault rule: how many of the matching requests get the fault."""

from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema

from counterfault.proxy.values.matching import Strict
from counterfault.proxy.values.units import Positive, Share, human, percent

# The largest number that `first` and `burst` take.
MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on the number of faults, counted over all workers.

    `most` faults for each unit if `every` is None, else for all units in each `every` seconds.
    """

    most: int
    every: float | None


class Dose(Strict):
    """A share, or `{first: 3}`, or `{burst: 5, every: 1m}`."""

    share: Share = Field(default=1.0, description="The share of matching requests that get it")
    first: int | None = Field(
        default=None, ge=1, le=MOST, description="Only the first so many of each unit in this run"
    )
    burst: int | None = Field(
        default=None, ge=1, le=MOST, description="So many in a row; with every. For all units"
    )
    every: Positive | None = Field(
        default=None, le=86400.0, description="How often a burst begins, up to a day"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_share(cls, data: Any) -> Any:
        return data if isinstance(data, dict | Dose) else {"share": data}

    @model_validator(mode="after")
    def _one(self) -> "Dose":
        given = [n for n in ("share", "first", "burst") if n in self.model_fields_set]
        if len(given) != 1:
            had = " and ".join(given) or "none of them"
            raise ValueError(f"must be a share, or have one of first and burst, not {had}")
        if (self.burst is None) != (self.every is None):
            raise ValueError("must have burst and every together")
        return self

    @property
    def limit(self) -> Limit | None:
        """The bound that a counted dose means; None for a share."""
        most = self.first or self.burst
        return None if most is None else Limit(most, self.every)

    def __str__(self) -> str:
        if self.first is not None:
            return f"the first {self.first} of each user"
        if self.every is not None:
            return f"bursts of {self.burst} every {human(self.every)}"
        return "each of them" if self.share == 1 else f"{percent(self.share)} of them"

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: Any) -> JsonSchemaValue:
        schema: JsonSchemaValue = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [schema["properties"]["share"], schema]}


ALL = Dose.model_validate("100%")
