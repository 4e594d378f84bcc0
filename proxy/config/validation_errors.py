"""Turns pydantic's errors into problems: sentences with file, line and column."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from counterfault.proxy.config.document import Document, Json, KeyPath, Problem, dotted
from counterfault.proxy.experiments.fault_rule import FaultRule
from counterfault.proxy.faults.base import Files
from counterfault.proxy.faults.registry import KNOWN
from counterfault.proxy.values.suggestions import unknown
from counterfault.proxy.values.units import human, percent, shown

_TYPE_NAMES = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}
_BOUND_ERRORS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_LENGTH_ERRORS = {
    "string_too_long": ("max_length", "be at most", "character", " long"),
    "string_too_short": ("min_length", "be at least", "character", " long"),
    "too_long": ("max_length", "have at most", "item", ""),
    "too_short": ("min_length", "have at least", "item", ""),
}


@dataclass(frozen=True, slots=True)
class Validated[Model: BaseModel]:
    """A document, its model, and all its problems.

    Attributes:
        document: The file's data.
        model: The model made from the data; None if it is not valid.
        problems: The problems of the YAML and of the model.
    """

    document: Document
    model: Model | None
    problems: tuple[Problem, ...]


def validate[Model: BaseModel](
    document: Document, kind: type[Model], files: Files | None = None
) -> Validated[Model]:
    """Make a model from a document's data; mistakes are returned, not raised.

    Args:
        document: The document; one that is not complete is not validated.
        kind: The model's class.
        files: Reads a file that the document names.
    """
    if not document.complete:
        return Validated(document, None, document.problems)
    try:
        model = kind.model_validate(document.data, context={"files": files})
    except ValidationError as e:
        found = (_problem(document, kind, error) for error in e.errors(include_url=False))
        problems = tuple(problem for problem in found if problem is not None)
        return Validated(document, None, document.problems + problems)
    return Validated(document, model, document.problems)


def _problem(document: Document, model: type[BaseModel], error: ErrorDetails) -> Problem | None:
    loc, data = error["loc"], document.data
    match error["type"]:
        case "extra_forbidden":
            key = str(loc[-1])
            return document.problem_at_key(
                _path_in_document(data, loc[:-1]),
                key,
                _unknown_key(key, _model_at(model, loc[:-1])),
            )
        case "missing":
            return document.problem_at_value(
                _path_in_document(data, loc[:-1]), f"missing key '{loc[-1]}'"
            )
    if loc and loc[-1] == "[key]":
        path = _path_in_document(data, loc[:-1])
        problem = document.problem_at_key(path[:-1], str(path[-1]), _sentence(error, str(path[-1])))
        return replace(problem, path=dotted(path))
    path = _path_in_document(data, loc)
    value = _value_at(data, path)
    # Pydantic counts valid items only. Invalid ones have errors of their own, which say more.
    if error["type"] == "too_short" and isinstance(value, list) and value:
        return None
    return document.problem_at_value(path, _sentence(error, value))


def _path_in_document(data: Json, loc: KeyPath) -> KeyPath:
    """Return the part of a model's location that exists in the data.

    The data has less where the user wrote a shorthand, such as text instead of a mapping.
    """
    for depth, part in enumerate(loc):
        match data:
            case dict() if isinstance(part, str) and part in data:
                data = data[part]
            case list() if isinstance(part, int) and part < len(data):
                data = data[part]
            case _:
                return loc[:depth]
    return loc


def _value_at(data: Any, path: KeyPath) -> Json:
    for part in path:
        data = data[part]
    value: Json = data
    return value


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    fields = list(_fields_by_key(model)) if model else []
    if model and issubclass(model, FaultRule):
        return unknown("fault", key, KNOWN, fields)
    return unknown("key", key, fields)


def _model_at(kind: Any, loc: KeyPath) -> type[BaseModel] | None:
    """Return the model class at a location inside a type; None if another type is there."""
    kind = _without_optional(kind)
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    if not loc:
        return kind if is_model else None
    if is_model:
        return _model_at(_fields_by_key(kind)[str(loc[0])].annotation, loc[1:])
    inside = get_args(kind)
    return _model_at(inside[1] if get_origin(kind) is dict else inside[0], loc[1:])


def _fields_by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields by their keys in YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _without_optional(kind: Any) -> Any:
    """Return `X` of `Annotated[X | None, …]`."""
    if get_origin(kind) is Annotated:
        return _without_optional(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _without_optional(next(arg for arg in get_args(kind) if arg is not type(None)))
    return kind


def _sentence(error: ErrorDetails, value: Json) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        one = "" if len(allowed) == 1 else "one of "
        return f"must be {one}{', '.join(sorted(allowed))}, not {shown(value)}"
    if kind in _TYPE_NAMES:
        return f"must be {_TYPE_NAMES[kind]}, not {shown(value)}"
    if kind in _BOUND_ERRORS:
        name, how = _BOUND_ERRORS[kind]
        return f"must be {how} {_shown_bound(context[name], value)}, not {_shown_value(value)}"
    if kind in _LENGTH_ERRORS:
        return _length_sentence(kind, context)
    text = error["msg"].replace("Input should be", "must be")
    return text[:1].lower() + text[1:]


def _length_sentence(kind: str, context: Mapping[str, Any]) -> str:
    name, how, what, end = _LENGTH_ERRORS[kind]
    count = context[name]
    return f"must {how} {count} {what}{'' if count == 1 else 's'}{end}"


def _shown_bound(bound: float, value: Json) -> str:
    """Return a bound in the notation of the value: `5s` or `10%` instead of a number."""
    if not isinstance(value, str):
        return f"{bound:.12g}"
    return percent(bound) if value.endswith("%") else human(bound)


def _shown_value(value: Json) -> str:
    return value if isinstance(value, str) and len(value) <= 40 else shown(value)
