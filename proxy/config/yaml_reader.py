"""YAML text as plain JSON data in which every value knows its line and column.

Scalars are read as in YAML 1.2's core schema, so `on`, `010` and `12:30:45` are text. What could
surprise a reader or a parser is refused: aliases, anchors, tags, merge keys, duplicate keys.
"""

import math
import re
from typing import Any

import yaml

from counterfault.proxy.config.document import (
    Document,
    Json,
    Place,
    Problem,
    Where,
    dotted,
    unreadable,
)

MOST_BYTES = 1 << 20
MOST_NODES = 20_000
MOST_DEPTH = 40

_WORDS = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.capitalize(), word.upper())
}
# 18 digits are exact in any reader's 64 bits; more are text, and so is 010, which is 8 to some.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
    r"[-+]?(?:(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+)"
)
# YAML's printable characters, without the byte order mark that may begin the file.
_CONTROL = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_UNFIT = re.compile("[\0\ud800-\udfff]")


def read(file: str, raw: bytes) -> Document:
    """The document in a file's bytes; whatever they are, nothing is raised."""
    if len(raw) > MOST_BYTES:
        return unreadable(file, f"must be at most {MOST_BYTES >> 20} MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        before = e.object[: e.start].decode()  # without the byte order mark, and so is e.start
        bad = f"must be UTF-8; byte 0x{e.object[e.start]:02x} is not"
        return unreadable(file, bad, *_end(before))
    if found := _CONTROL.search(text):
        shown = f"U+{ord(found[0]):04X}"
        return unreadable(file, f"must be text; {shown} is not", *_end(text[: found.start()]))
    loader: Any = _Loader(text)
    reader = _Reader(file, loader)
    try:
        data = reader.document()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark or loader.get_mark()
        return _broken(reader, _said(e), mark)
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML hands \UFFFFFFFF to chr() and the digits of %YAML 1.999… to int().
        return _broken(reader, "an escape or a directive is not YAML", loader.get_mark())
    return Document(
        file, data, reader.values, reader.keys, tuple(reader.problems), not reader.refused
    )


def _end(text: str) -> Place:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _said(error: yaml.MarkedYAMLError) -> str:
    said = error.problem or "is not YAML"
    if error.context and error.context_mark:
        return f"{said} {error.context} from line {error.context_mark.line + 1}"
    return said


def _broken(reader: "_Reader", text: str, mark: Any) -> Document:
    last = Problem(reader.file, mark.line + 1, mark.column + 1, "", text)
    problems = (*reader.problems, last)
    return Document(reader.file, None, reader.values, reader.keys, problems, False)


class _Loader(yaml.SafeLoader):
    """Its scanner looks far ahead at brackets, so that depth has to be bounded there already."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= MOST_DEPTH:
            raise _too_much(f"must be at most {MOST_DEPTH} levels deep", self.get_mark())
        super().fetch_flow_collection_start(token)


def _too_much(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


class _Reader:
    """Turns the parser's events into data, and collects what is wrong on the way."""

    def __init__(self, file: str, loader: Any) -> None:
        self.file = file
        self.values: dict[Where, Place] = {}
        self.keys: dict[Where, Place] = {}
        self.problems: list[Problem] = []
        self.refused = False
        self._loader = loader
        self._nodes = 0

    def document(self) -> Json:
        loader = self._loader
        loader.get_event()
        if loader.check_event(yaml.StreamEndEvent):
            raise _too_much("must not be empty", yaml.Mark("", 0, 0, 0, None, 0))
        loader.get_event()
        data = self._value(())
        loader.get_event()
        if not loader.check_event(yaml.StreamEndEvent):
            raise _too_much("must be one document", loader.peek_event().start_mark)
        return data

    def _value(self, where: Where) -> Json:
        event = self._node(where)
        self.values[where] = _place(event)
        match event:
            case yaml.SequenceStartEvent():
                return self._sequence(where)
            case yaml.MappingStartEvent():
                return self._mapping(where)
            case yaml.ScalarEvent():
                return _scalar(event)
        return None

    def _node(self, where: Where) -> Any:
        """The next node's event, having looked at all that comes with it."""
        event = self._loader.get_event()
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise _too_much(f"must be at most {MOST_NODES} values and keys", event.start_mark)
        if len(where) > MOST_DEPTH:
            raise _too_much(f"must be at most {MOST_DEPTH} levels deep", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, where, f"aliases (*{event.anchor}) are not allowed")
            return event
        if event.anchor is not None:
            self._refuse(event, where, f"anchors (&{event.anchor}) are not allowed")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, where, f"tags ({tag}) are not allowed")
        if isinstance(event, yaml.ScalarEvent) and _UNFIT.search(event.value):
            self._refuse(event, where, "must not hold a NUL or half a surrogate pair")
        return event

    def _sequence(self, where: Where) -> list[Json]:
        items: list[Json] = []
        while not self._loader.check_event(yaml.SequenceEndEvent):
            items.append(self._value((*where, len(items))))
        self._loader.get_event()
        return items

    def _mapping(self, where: Where) -> dict[str, Json]:
        mapping: dict[str, Json] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            key, place = self._key(where)
            child = (*where, key)
            first = self.keys.setdefault(child, place)
            if key in mapping:
                said = f"duplicate key '{key}', first at line {first[0]}"
                self.problems.append(Problem(self.file, *place, dotted(where), said))
            mapping[key] = self._value(child)
        self._loader.get_event()
        return mapping

    def _key(self, where: Where) -> tuple[str, Place]:
        event = self._loader.peek_event()
        if isinstance(event, yaml.ScalarEvent):
            self._node(where)
            if event.implicit[0] and event.value == "<<":
                self._refuse(event, where, "merge keys (<<) are not allowed")
            return event.value, _place(event)
        if not isinstance(event, yaml.AliasEvent):
            self._refuse(event, where, "keys must be text")
        self._value((*where, "?"))
        return f"?{self._nodes}", _place(event)

    def _refuse(self, event: Any, where: Where, text: str) -> None:
        self.refused = True
        self.problems.append(Problem(self.file, *_place(event), dotted(where), text))


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _scalar(event: yaml.ScalarEvent) -> Json:
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    number = float(text) if _FLOAT.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text
