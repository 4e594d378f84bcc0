"""The base class of all faults.

A fault is the settings that a user writes, and the action that they lead to: a subclass of `Fault`
with fields and `act`, in a module of this package or of another one (docs/adding-a-fault.md).
"""

import re
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
"""Returns a random number in [0, 1)."""
type Files = Callable[[str], bytes]
"""Returns the content of a file, named relative to that of the experiment. Raises OSError."""
type Stage = Literal["either", "around", "after"]

FILE_BYTES = 1 << 20
"""The largest file that a setting may name, in bytes."""
RULE_KEYS = frozenset({"at", "match", "dose", "when", "per", "unsafe"})
"""The keys of a rule beside its fault (`experiments.fault_rule`), which no fault can be named."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def fault_name_problem(name: str) -> str | None:
    """What is wrong with the name of a fault, which is a key of a rule; None if nothing is."""
    if not _NAME.fullmatch(name):
        return "a fault's name is lower case letters, digits and _, beginning with a letter"
    if name in RULE_KEYS or name == "fault" or hasattr(Strict, name):
        return f"{name!r} means something else in a rule"
    return None


def named_file(name: str, info: ValidationInfo, most: int = FILE_BYTES) -> bytes:
    """The content of a file that a setting names, of at most `most` bytes.

    Raises ValueError, with what is wrong with the file.
    """
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
    """A kind of fault, named where it is defined: `class Latency(Fault, name="latency")`.

    The fields are the settings, as pydantic fields; `counterfault.proxy.values.units` has types for
    durations, shares and sizes. The docstring of the subclass is shown to users.
    """

    known: ClassVar[dict[str, type["Fault"]]] = {}
    """All classes that have been defined; `registry.KNOWN` has the usable ones."""
    name: ClassVar[str]
    """The key under which the fault stands in a rule."""
    scalar: ClassVar[str | None] = None
    """The field that a bare value stands for: `latency: 400ms` is `latency: {fixed: 400ms}`."""
    stage: ClassVar[Stage] = "either"
    """`either`: the rule's `when` chooses; `around`: from the request to the end of the response;
    `after`: the fault changes the response.
    """
    unsafe: ClassVar[str] = ""
    """Why a rule needs `unsafe: true` whatever the method is; empty if it does not."""
    messages: ClassVar[bool] = False
    """Whether the fault can happen to single messages of a WebSocket; see `actions`."""
    tcp: ClassVar[bool] = False
    """Whether the fault can happen to raw connections; see `actions`."""

    def __init_subclass__(cls, *, name: str, scalar: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name, cls.scalar = name, scalar
        Fault.known.setdefault(name, cls)

    def act(self, request: Request, random: Random) -> Action:
        """What to do with a request that the rule matches and the dose has chosen.

        A pure function of its arguments, called once for each such request, in the worker that
        serves it. Raising an exception leaves the request alone and counts an internal error.

        Args:
            request: The head of the request; all but empty for a raw connection.
            random: Draws from [0, 1); the only source of chance.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """The fault in a few words, from the fields that are set; floats are taken for seconds."""
        given = [(name, v) for name, v in self if name in self.model_fields_set and v is not None]
        texts = ((name, human(v) if isinstance(v, float) else v) for name, v in given)
        words = (str(v) if name == self.scalar else f"{name} {v}" for name, v in texts)
        return f"{self.name} {', '.join(words)}"

    @model_validator(mode="before")
    @classmethod
    def _from_scalar(cls, data: Any) -> Any:
        if cls.scalar is not None and not isinstance(data, dict | Fault):
            return {cls.scalar: data}
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: Any) -> JsonSchemaValue:
        """The JSON Schema of the settings, which for a fault with a scalar may be a bare value."""
        schema: JsonSchemaValue = handler.resolve_ref_schema(handler(core))
        if cls.scalar is None:
            return schema
        return {"anyOf": [schema["properties"][cls.scalar], schema]}
