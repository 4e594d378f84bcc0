"""`corrupt`: the body of the response is changed; its framing stays valid."""

import re
from typing import override

from pydantic import Field, JsonValue, field_validator, model_validator

from counterfault.proxy.faults.actions import Action, Flip, Patch, Replace, Rewrite
from counterfault.proxy.faults.base import Fault, Random
from counterfault.proxy.values.matching import Strict
from counterfault.proxy.values.request import Request
from counterfault.proxy.values.units import Share, percent, shown

_ESCAPE = re.compile("~[^01]|~$")


class JsonChange(Strict):
    """A change of one place in a JSON document."""

    pointer: str = Field(max_length=1024, description="RFC 6901, such as /items/0/price")
    value: JsonValue = Field(default=None, description="What is there instead, or as a new member")
    remove: bool = Field(default=False, description="Nothing is there any more")

    @field_validator("pointer")
    @classmethod
    def _rfc6901(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError(f"must be empty or begin with /, not {shown(value)}")
        if _ESCAPE.search(value):
            raise ValueError("must write ~ as ~0 and / within a name as ~1")
        return value

    @model_validator(mode="after")
    def _one(self) -> "JsonChange":
        if self.remove == ("value" in self.model_fields_set):
            raise ValueError("must have one of value and `remove: true`")
        if self.remove and not self.pointer:
            raise ValueError("the whole document cannot be removed")
        return self

    @property
    def patch(self) -> Patch:
        """The change as an action, its pointer decoded (RFC 6901, section 4)."""
        names = self.pointer.split("/")[1:]
        steps = tuple(name.replace("~1", "/").replace("~0", "~") for name in names)
        return Patch(steps, self.value, self.remove)


class Corrupt(Fault, name="corrupt", scalar="bytes"):
    """The body is damaged: some bytes of it, a place in its JSON, or all of it."""

    stage = "after"
    bytes: Share | None = Field(default=None, description="The share of bytes that are others")
    # Named json in YAML, which would hide a method of the model.
    document: JsonChange | None = Field(
        default=None, alias="json", description="A place in JSON bodies of up to 1 MiB"
    )
    body: str | None = Field(default=None, max_length=65536, description="Up to 64 KiB of text")

    @field_validator("bytes")
    @classmethod
    def _some(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("must be above 0%")
        return value

    @model_validator(mode="after")
    def _one(self) -> "Corrupt":
        given = [value for value in (self.bytes, self.document, self.body) if value is not None]
        if len(given) != 1:
            raise ValueError("must have one of bytes, json and body")
        return self

    @override
    def act(self, request: Request, random: Random) -> Action:
        if self.bytes is not None:
            return Rewrite(body=Flip(self.bytes, random()))
        if self.document is not None:
            return Rewrite(body=self.document.patch)
        return Rewrite(body=Replace((self.body or "").encode()))

    @override
    def describe(self) -> str:
        if self.bytes is not None:
            return f"corrupt {percent(self.bytes)} of the bytes"
        if self.document is not None:
            what = "removed" if self.document.remove else shown(self.document.value)
            return f"corrupt json {self.document.pointer or 'document'}: {what}"
        return f"corrupt, a body of {len(self.body or '')} characters"
