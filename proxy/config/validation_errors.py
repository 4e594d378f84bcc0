"""What pydantic found wrong with a document, said in sentences with places."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from counterfault.proxy.config.document import Document, Json, Problem, Where, dotted
from counterfault.proxy.experiments.fault_rule import FaultRule
from counterfault.proxy.faults import KNOWN
from counterfault.proxy.faults.base import Files
from counterfault.proxy.values.suggestions import unknown
from counterfault.proxy.values.units import human, percent, shown

_KINDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_LENGTHS = {
    "string_too_long": ("max_length", "be at most", "character", " long"),
    "string_too_short": ("min_length", "be at least", "character", " long"),
    "too_long": ("max_length", "have at most", "item", ""),
    "too_short": ("min_length", "have at least", "item", ""),
}


@dataclass(frozen=True, slots=True)
class Judged[Model: BaseModel]:
    """A document, the model made of it if that could be, and all that is wrong with it."""

    document: Document
    model: Model | None
    problems: tuple[Problem, ...]


def judge[Model: BaseModel](
    document: Document, kind: type[Model], files: Files | None = None
) -> Judged[Model]:
    """Try a document's data on a model; `files` reads those that it names."""
    if not document.whole:
        return Judged(document, None, document.problems)
    try:
        model = kind.model_validate(document.data, context={"files": files})
    except ValidationError as e:
        found = (_problem(document, kind, error) for error in e.errors(include_url=False))
        problems = tuple(problem for problem in found if problem is not None)
        return Judged(document, None, document.problems + problems)
    return Judged(document, model, document.problems)


def _problem(document: Document, model: type[BaseModel], error: ErrorDetails) -> Problem | None:
    loc, data = error["loc"], document.data
    match error["type"]:
        case "extra_forbidden":
            key = str(loc[-1])
            return document.at_key(
                _present(data, loc[:-1]), key, _unknown_key(key, _inner(model, loc[:-1]))
            )
        case "missing":
            return document.at_value(_present(data, loc[:-1]), f"missing key '{loc[-1]}'")
    if loc and loc[-1] == "[key]":
        where = _present(data, loc[:-1])
        problem = document.at_key(where[:-1], str(where[-1]), _sentence(error, str(where[-1])))
        return replace(problem, path=dotted(where))
    where = _present(data, loc)
    value = _value(data, where)
    # pydantic counts the good items only; the bad ones have errors of their own.
    if error["type"] == "too_short" and isinstance(value, list) and value:
        return None
    return document.at_value(where, _sentence(error, value))


def _present(data: Json, loc: Where) -> Where:
    """As much of a place in the model as there is in the document; a shorthand has less."""
    for depth, part in enumerate(loc):
        match data:
            case dict() if isinstance(part, str) and part in data:
                data = data[part]
            case list() if isinstance(part, int) and part < len(data):
                data = data[part]
            case _:
                return loc[:depth]
    return loc


def _value(data: Any, where: Where) -> Json:
    for part in where:
        data = data[part]
    value: Json = data
    return value


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    fields = list(_named(model)) if model else []
    if model and issubclass(model, FaultRule):
        return unknown("fault", key, KNOWN, fields)
    return unknown("key", key, fields)


def _inner(kind: Any, loc: Where) -> type[BaseModel] | None:
    """The model at a place inside another."""
    kind = _bare(kind)
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    if not loc:
        return kind if is_model else None
    if is_model:
        return _inner(_named(kind)[str(loc[0])].annotation, loc[1:])
    inside = get_args(kind)
    return _inner(inside[1] if get_origin(kind) is dict else inside[0], loc[1:])


def _named(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the names they have in YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _bare(kind: Any) -> Any:
    """`X` of `Annotated[X | None, …]`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _bare(next(arg for arg in get_args(kind) if arg is not type(None)))
    return kind


def _sentence(error: ErrorDetails, value: Json) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        one = "" if len(allowed) == 1 else "one of "
        return f"must be {one}{', '.join(sorted(allowed))}, not {shown(value)}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {shown(value)}"
    if kind in _BOUNDS:
        name, how = _BOUNDS[kind]
        return f"must be {how} {_bound(context[name], value)}, not {_plain(value)}"
    if kind in _LENGTHS:
        return _length(kind, context)
    said = error["msg"].replace("Input should be", "must be")
    return said[:1].lower() + said[1:]


def _length(kind: str, context: Mapping[str, Any]) -> str:
    name, how, what, end = _LENGTHS[kind]
    count = context[name]
    return f"must {how} {count} {what}{'' if count == 1 else 's'}{end}"


def _bound(bound: float, value: Json) -> str:
    """A bound in the words of the value: seconds only mean something to us."""
    if not isinstance(value, str):
        return f"{bound:.12g}"
    return percent(bound) if value.endswith("%") else human(bound)


def _plain(value: Json) -> str:
    return value if isinstance(value, str) and len(value) <= 40 else shown(value)
