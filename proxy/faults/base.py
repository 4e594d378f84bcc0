"""What every fault is: settings a user writes, and an action they lead to.

A fault is one file in this package: a subclass of `Fault` with its fields and `act`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import ValidationInfo, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema

from counterfault.proxy.faults.actions import Action
from counterfault.proxy.values.matching import Strict
from counterfault.proxy.values.request import Request
from counterfault.proxy.values.units import human

type Random = Callable[[], float]
"""Draws a number in [0, 1)."""
type Files = Callable[[str], bytes]
"""A file that an experiment names, relative to its own; raises OSError."""
type Stage = Literal["either", "around", "after"]

FILE_BYTES = 1 << 20


def named_file(name: str, info: ValidationInfo, most: int = FILE_BYTES) -> bytes:
    """The content of a file that a setting names; ValueError says what is wrong with it."""
    files: Files | None = (info.context or {}).get("files")
    if files is None:
        raise ValueError(f"cannot read {name}: there are no files here")
    try:
        content = files(name)
    except OSError as e:
        raise ValueError(f"cannot read {name}: {(e.strerror or str(e)).lower()}") from e
    if len(content) > most:
        raise ValueError(f"{name} must be at most {most >> 10} KiB")
    return content


class Fault(Strict):
    """A kind of fault; `class Latency(Fault, name="latency", scalar="fixed")` registers it."""

    known: ClassVar[dict[str, type["Fault"]]] = {}
    name: ClassVar[str]
    scalar: ClassVar[str | None] = None
    """The field that a bare value stands for: `latency: 400ms` is `latency: {fixed: 400ms}`."""
    stage: ClassVar[Stage] = "either"
    """`either`: `when` chooses; `around` the upstream: it says nothing; `after`: the answer's."""
    unsafe: ClassVar[str] = ""
    """Why `unsafe: true` is needed whatever the method is."""
    messages: ClassVar[bool] = False
    """Whether it can happen to single messages of a WebSocket."""
    tcp: ClassVar[bool] = False
    """Whether it can happen to raw connections."""

    def __init_subclass__(cls, *, name: str, scalar: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name, cls.scalar = name, scalar
        Fault.known[name] = cls

    def act(self, request: Request, random: Random) -> Action:
        """What to do with this request."""
        raise NotImplementedError

    def describe(self) -> str:
        """What it does in a few words, from the fields that are set; floats are seconds."""
        given = [(name, v) for name, v in self if name in self.model_fields_set and v is not None]
        said = ((name, human(v) if isinstance(v, float) else v) for name, v in given)
        words = (str(v) if name == self.scalar else f"{name} {v}" for name, v in said)
        return f"{self.name} {', '.join(words)}"

    @model_validator(mode="before")
    @classmethod
    def _from_scalar(cls, data: Any) -> Any:
        if cls.scalar is not None and not isinstance(data, dict | Fault):
            return {cls.scalar: data}
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: Any) -> JsonSchemaValue:
        schema: JsonSchemaValue = handler.resolve_ref_schema(handler(core))
        if cls.scalar is None:
            return schema
        return {"anyOf": [schema["properties"][cls.scalar], schema]}
