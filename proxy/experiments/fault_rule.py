"""The model of a fault rule: where, when and how often a fault happens."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model, model_validator

from counterfault.proxy.faults import Fault
from counterfault.proxy.faults.dose import ALL, Dose
from counterfault.proxy.faults.registry import KNOWN
from counterfault.proxy.values.matching import Match, Strict

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class FaultRule(Strict):
    """Where, when and how often a fault happens; the fault itself is the one further key."""

    at: str = Field(description="The listener at which to inject")
    match: Match = Field(default=Match(), description="Which of its requests; unset: all")
    dose: Dose = Field(
        default=ALL,
        description="Of the matching requests: a share, {first: 3} or {burst: 5, every: 1m}",
    )
    when: Literal["before", "after"] = Field(
        default="before", description="Before the upstream, or after it has done the work"
    )
    per: Literal["request", "message"] = Field(
        default="request",
        description="message: each message of a WebSocket on its own; `when: after`: its answers",
    )
    unsafe: bool = Field(
        default=False,
        description="Allow `duplicate`, and `after` for methods that are not idempotent",
    )

    @property
    def fault(self) -> Fault:
        """The fault, which is the one of the rule's keys that names a fault."""
        fault: Fault = next(f for name in KNOWN if (f := getattr(self, name, None)) is not None)
        return fault

    @model_validator(mode="before")
    @classmethod
    def _after_by_nature(cls, data: Any) -> Any:
        """Set `when: after`, if it is unset, for faults that change the response."""
        if not isinstance(data, dict) or "when" in data:
            return data
        late = any(name in data and kind.stage == "after" for name, kind in KNOWN.items())
        return {**data, "when": "after"} if late else data

    @model_validator(mode="after")
    def _one_fault(self) -> "FaultRule":
        given = [name for name in KNOWN if getattr(self, name, None) is not None]
        if len(given) != 1:
            had = " and ".join(given) or "none"
            raise ValueError(f"must have one fault of {', '.join(KNOWN)}, not {had}")
        for problem in (self._wrong_stage(), self._wrong_unit(), self._risk()):
            if problem:
                raise ValueError(problem)
        return self

    def _wrong_stage(self) -> str | None:
        name, stage = self.fault.name, self.fault.stage
        if stage == "around" and self.when == "after":
            return f"`when` says nothing for {name}, which begins with the request"
        if stage == "after" and self.when == "before":
            return f"`when: before` cannot be for {name}, which befalls the answer"
        return None

    def _wrong_unit(self) -> str | None:
        if self.per == "message" and not self.fault.messages:
            able = ", ".join(name for name, kind in KNOWN.items() if kind.messages)
            return f"`per: message` is for {able}, not for {self.fault.name}"
        if self.per == "message" and self.dose.limit is not None:
            return "`per: message` takes a share as its dose"
        return None

    def _risk(self) -> str | None:
        if self.unsafe:
            return None
        if self.fault.unsafe:
            why = self.fault.unsafe
            return f"{self.fault.name} {why}; say `unsafe: true` if the upstream may see that"
        risky = [m for m in self.match.method if m not in IDEMPOTENT]
        if self.when == "after" and self.per == "request" and risky:
            said = "`when: after`" if self.fault.stage == "either" else self.fault.name
            return (
                f"{said} loses the answer to a {risky[0]} that took effect; "
                "say `unsafe: true` if clients may repeat it"
            )
        return None

    def spares(self, method: str) -> bool:
        """Whether a request passes without the fault, because a retry of it could do harm.

        `method` is empty for raw connections.
        """
        if not method:  # raw bytes have none
            return False
        return self.when == "after" and not self.unsafe and method not in IDEMPOTENT


if TYPE_CHECKING:
    AnyFaultRule = FaultRule
else:
    # One optional field for each known fault: a new file in proxy/faults is enough, or another
    # package's entry point.
    _fields: dict[str, Any] = {
        name: (kind | None, Field(default=None, description=kind.__doc__))
        for name, kind in KNOWN.items()
    }
    AnyFaultRule = create_model(
        "FaultRule", __base__=FaultRule, __doc__=FaultRule.__doc__, **_fields
    )
