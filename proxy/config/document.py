"""A configuration file as data with places, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass

type Json = bool | int | float | str | list[Json] | dict[str, Json] | None
type Where = tuple[str | int, ...]
type Place = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong with the configuration, and where; line 0 means the file as a whole."""

    file: str
    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        said = f"{place}: {self.path}: {self.text}" if self.path else f"{place}: {self.text}"
        # One line each, whatever a key or a file name holds.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)


@dataclass(frozen=True, slots=True)
class Document:
    """A file's data, the places of its values and keys, and what is wrong with its YAML."""

    file: str
    data: Json
    values: Mapping[Where, Place]
    keys: Mapping[Where, Place]
    problems: tuple[Problem, ...]
    whole: bool
    """Whether the data is all there, so that a model's verdict on it is worth something."""

    def at_value(self, where: Where, text: str) -> Problem:
        return Problem(self.file, *self.values.get(where, (1, 1)), dotted(where), text)

    def at_key(self, where: Where, key: str, text: str) -> Problem:
        """A problem of a mapping at one of its keys."""
        place = self.keys.get((*where, key)) or self.values.get(where, (1, 1))
        return Problem(self.file, *place, dotted(where), text)


def dotted(where: Where) -> str:
    """`faults.0.latency`"""
    return ".".join(part if len(part) <= 40 else part[:39] + "…" for part in map(str, where))


def unreadable(file: str, text: str, line: int = 0, column: int = 0) -> Document:
    """A file that has no data, and why."""
    return Document(file, None, {}, {}, (Problem(file, line, column, "", text),), False)
