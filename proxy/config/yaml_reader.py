"""Reads YAML text as plain JSON data, with the line and column of every value.

Scalars follow the core schema of YAML 1.2, so `on`, `010` and `12:30:45` are text. Features that
surprise people or parsers are refused: aliases, anchors, tags, merge keys and duplicate keys.
"""

import re
from typing import Any

import yaml

from counterfault.proxy.config.document import (
    Document,
    Json,
    KeyPath,
    Position,
    Problem,
    dotted,
    unreadable_document,
)
from counterfault.proxy.config.yaml_scalars import scalar_of

MOST_BYTES = 1 << 20
MOST_NODES = 20_000
MOST_DEPTH = 40

# Every character that is not printable in YAML, and the byte order mark: one at the start of the
# file is gone after decoding.
_UNPRINTABLE = re.compile(
    "[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_NUL_OR_SURROGATE = re.compile("[\0\ud800-\udfff]")


def read_yaml(file: str, raw: bytes) -> Document:
    """Return the document in a file's bytes; never raises, mistakes become its problems."""
    if len(raw) > MOST_BYTES:
        return unreadable_document(file, f"must be at most {MOST_BYTES >> 20} MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        before = e.object[: e.start].decode()  # e.start does not count the byte order mark either
        bad = f"must be UTF-8; byte 0x{e.object[e.start]:02x} is not"
        return unreadable_document(file, bad, *_end_position(before))
    if found := _UNPRINTABLE.search(text):
        shown = f"U+{ord(found[0]):04X}"
        return unreadable_document(
            file, f"must be text; {shown} is not", *_end_position(text[: found.start()])
        )
    loader: Any = _Loader(text)
    builder = _DataBuilder(file, loader)
    try:
        data = builder.document()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark or loader.get_mark()
        return _broken_document(builder, _error_text(e), mark)
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML passes \UFFFFFFFF to chr() and the digits of %YAML 1.999… to int() unchecked.
        return _broken_document(builder, "an escape or a directive is not YAML", loader.get_mark())
    return Document(
        file,
        data,
        builder.value_positions,
        builder.key_positions,
        tuple(builder.problems),
        not builder.refused,
    )


def _end_position(text: str) -> Position:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _error_text(error: yaml.MarkedYAMLError) -> str:
    text = error.problem or "is not YAML"
    if error.context and error.context_mark:
        return f"{text} {error.context} from line {error.context_mark.line + 1}"
    return text


def _broken_document(builder: "_DataBuilder", text: str, mark: Any) -> Document:
    last = Problem(builder.file, mark.line + 1, mark.column + 1, "", text)
    problems = (*builder.problems, last)
    return Document(
        builder.file, None, builder.value_positions, builder.key_positions, problems, False
    )


class _Loader(yaml.SafeLoader):
    """Bounds the depth of brackets in the scanner, which reads far ahead of the parser."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= MOST_DEPTH:
            raise _error_at(f"must be at most {MOST_DEPTH} levels deep", self.get_mark())
        super().fetch_flow_collection_start(token)


def _error_at(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


class _DataBuilder:
    """Builds data from the parser's events, and collects positions and problems on the way."""

    def __init__(self, file: str, loader: Any) -> None:
        self.file = file
        self.value_positions: dict[KeyPath, Position] = {}
        self.key_positions: dict[KeyPath, Position] = {}
        self.problems: list[Problem] = []
        self.refused = False
        self._loader = loader
        self._nodes = 0

    def document(self) -> Json:
        loader = self._loader
        loader.get_event()
        if loader.check_event(yaml.StreamEndEvent):
            raise _error_at("must not be empty", yaml.Mark("", 0, 0, 0, None, 0))
        loader.get_event()
        data = self._value(())
        loader.get_event()
        if not loader.check_event(yaml.StreamEndEvent):
            raise _error_at("must be one document", loader.peek_event().start_mark)
        return data

    def _value(self, path: KeyPath) -> Json:
        event = self._node(path)
        self.value_positions[path] = _position(event)
        match event:
            case yaml.SequenceStartEvent():
                return self._sequence(path)
            case yaml.MappingStartEvent():
                return self._mapping(path)
            case yaml.ScalarEvent():
                return scalar_of(event)
        return None

    def _node(self, path: KeyPath) -> Any:
        """Return the next node's event after checks of size, depth, anchor, tag and characters."""
        event = self._loader.get_event()
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise _error_at(f"must be at most {MOST_NODES} values and keys", event.start_mark)
        if len(path) > MOST_DEPTH:
            raise _error_at(f"must be at most {MOST_DEPTH} levels deep", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, path, f"aliases (*{event.anchor}) are not allowed")
            return event
        if event.anchor is not None:
            self._refuse(event, path, f"anchors (&{event.anchor}) are not allowed")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, path, f"tags ({tag}) are not allowed")
        if isinstance(event, yaml.ScalarEvent) and _NUL_OR_SURROGATE.search(event.value):
            self._refuse(event, path, "must not hold a NUL or half a surrogate pair")
        return event

    def _sequence(self, path: KeyPath) -> list[Json]:
        items: list[Json] = []
        while not self._loader.check_event(yaml.SequenceEndEvent):
            items.append(self._value((*path, len(items))))
        self._loader.get_event()
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Json]:
        mapping: dict[str, Json] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            key, position = self._key(path)
            child = (*path, key)
            first = self.key_positions.setdefault(child, position)
            if key in mapping:
                text = f"duplicate key '{key}', first at line {first[0]}"
                self.problems.append(Problem(self.file, *position, dotted(path), text))
            mapping[key] = self._value(child)
        self._loader.get_event()
        return mapping

    def _key(self, path: KeyPath) -> tuple[str, Position]:
        event = self._loader.peek_event()
        if isinstance(event, yaml.ScalarEvent):
            self._node(path)
            if event.implicit[0] and event.value == "<<":
                self._refuse(event, path, "merge keys (<<) are not allowed")
            return event.value, _position(event)
        if not isinstance(event, yaml.AliasEvent):
            self._refuse(event, path, "keys must be text")
        self._value((*path, "?"))
        return f"?{self._nodes}", _position(event)

    def _refuse(self, event: Any, path: KeyPath, text: str) -> None:
        self.refused = True
        self.problems.append(Problem(self.file, *_position(event), dotted(path), text))


def _position(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1
