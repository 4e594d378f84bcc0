"""A configuration file as data with the position of every value, and problems at such positions."""

from collections.abc import Mapping
from dataclasses import dataclass

type Json = bool | int | float | str | list[Json] | dict[str, Json] | None
type KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead from a document's top to a value."""
type Position = tuple[int, int]
"""A line and a column, both counted from 1."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a configuration file.

    Attributes:
        file: The file, relative to the configuration directory.
        line: The line from 1; 0 if the problem is the file as a whole.
        column: The column from 1; 0 if the problem is the file as a whole.
        path: The keys that lead to the value, such as `faults.0.latency`; may be empty.
        text: What is wrong, in one sentence.
    """

    file: str
    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        """Return `FILE:LINE:COLUMN: PATH: TEXT`, always in one line."""
        position = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        line = f"{position}: {self.path}: {self.text}" if self.path else f"{position}: {self.text}"
        # Escape line breaks in keys and file names, so that each problem stays one line.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@dataclass(frozen=True, slots=True)
class Document:
    """A file's data, where each part of it stands, and the problems of its YAML.

    Attributes:
        file: The file, relative to the configuration directory.
        data: The plain data; None if the file is not YAML.
        value_positions: The position of each value.
        key_positions: The position of each mapping key, by the path of its value.
        problems: What is wrong with the YAML.
        complete: Whether all data of the file was read, so that it makes sense to validate it.
    """

    file: str
    data: Json
    value_positions: Mapping[KeyPath, Position]
    key_positions: Mapping[KeyPath, Position]
    problems: tuple[Problem, ...]
    complete: bool

    def problem_at_value(self, path: KeyPath, text: str) -> Problem:
        """Return a problem at the position of a value; at the file's start if there is none."""
        return Problem(self.file, *self.value_positions.get(path, (1, 1)), dotted(path), text)

    def problem_at_key(self, path: KeyPath, key: str, text: str) -> Problem:
        """Return a problem of the mapping at `path`, at the position of one of its keys."""
        position = self.key_positions.get((*path, key)) or self.value_positions.get(path, (1, 1))
        return Problem(self.file, *position, dotted(path), text)


def dotted(path: KeyPath) -> str:
    """Return the path as text, such as `faults.0.latency`; keys past 40 characters are cut."""
    return ".".join(part if len(part) <= 40 else part[:39] + "…" for part in map(str, path))


def unreadable_document(file: str, text: str, line: int = 0, column: int = 0) -> Document:
    """Return the document of a file that has no data, with the reason as its only problem."""
    return Document(file, None, {}, {}, (Problem(file, line, column, "", text),), False)
