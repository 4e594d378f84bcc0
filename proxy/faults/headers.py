"""`headers`: header fields of the request or of the response are set or removed."""

from typing import Annotated, override

from pydantic import BeforeValidator, Field, model_validator

from counterfault.proxy.faults.actions import Action, Edit, Rewrite
from counterfault.proxy.faults.base import Fault, Random
from counterfault.proxy.faults.fields import MOST_FIELDS, FieldName, FieldValue
from counterfault.proxy.values.matching import OneOrMore, Strict, listed
from counterfault.proxy.values.request import Request


class Changes(Strict):
    """What happens to one head; framing headers and the cohort's tag are out of reach."""

    set: dict[FieldName, FieldValue] = Field(
        default={},
        max_length=MOST_FIELDS,
        description="Names and values, up to 50; others are replaced",
    )
    remove: Annotated[tuple[FieldName, ...], BeforeValidator(listed), OneOrMore] = Field(
        default=(), max_length=MOST_FIELDS, description="A name or a list of up to 50"
    )

    @property
    def edit(self) -> Edit:
        """The changes as an action, in bytes."""
        fields = tuple((name.encode(), value.encode()) for name, value in self.set.items())
        return Edit(tuple(name.encode() for name in self.remove), fields)

    def __str__(self) -> str:
        removed = [f"without {', '.join(self.remove)}"] if self.remove else []
        return ", ".join([*removed, *(f"{name}: {value}" for name, value in self.set.items())])


class Headers(Fault, name="headers"):
    """Headers are set or removed, on the way to the upstream or on the way back."""

    stage = "around"
    request: Changes = Field(default=Changes(), description="What the upstream gets")
    response: Changes = Field(default=Changes(), description="What the client gets")

    @model_validator(mode="after")
    def _some(self) -> "Headers":
        changes = (self.request, self.response)
        if not any(change.set or change.remove for change in changes):
            raise ValueError("must set or remove something on request or response")
        return self

    @override
    def act(self, request: Request, random: Random) -> Action:
        return Rewrite(self.request.edit, self.response.edit)

    @override
    def describe(self) -> str:
        sides = (("request", self.request), ("response", self.response))
        return "headers " + "; ".join(f"{side} {said}" for side, c in sides if (said := str(c)))
