"""The JSON Schemas of the models that the API answers with; docstrings are their descriptions."""

import ast
import inspect
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from counterfault.proxy.models import (
    chart_data,
    json_model,
    overview,
    problem,
    run_record,
    run_summary,
    run_traffic,
)
from counterfault.proxy.models.chart_data import ChartData
from counterfault.proxy.models.json_model import JsonModel
from counterfault.proxy.models.overview import ExperimentDetail, Overview
from counterfault.proxy.models.problem import Problem
from counterfault.proxy.models.run_record import RunRecord

type Json = dict[str, Any]
"""A part of an OpenAPI document."""

_MODULES = (chart_data, json_model, overview, problem, run_record, run_summary, run_traffic)
_MODELS: tuple[type[JsonModel], ...] = (Overview, ExperimentDetail, RunRecord, ChartData, Problem)


class _Schemas(GenerateJsonSchema):
    """Pydantic's JSON Schema without titles, which only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas() -> dict[str, Json]:
    """Return the JSON Schemas of all models, by the names of their classes."""
    _, found = TypeAdapter.json_schemas(
        [(model.__name__, "serialization", TypeAdapter(model)) for model in _MODELS],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    descriptions = {name: words for module in _MODULES for name, words in _described(module)}
    definitions: dict[str, Json] = found["$defs"]
    for name, schema in definitions.items():
        schema.pop("title", None)
        for model in (cls.__name__ for cls in _bases(name)):
            for field, about in schema.get("properties", {}).items():
                if (model, field) in descriptions:
                    about["description"] = descriptions[model, field]
        if (name, "") in descriptions:
            schema["description"] = descriptions[name, ""]
    return dict(sorted(definitions.items()))


def _bases(name: str) -> Iterable[type]:
    """Return the classes that define the fields of a model, the model itself last."""
    model = next((m for module in _MODULES if (m := getattr(module, name, None))), None)
    return reversed(model.__mro__) if isinstance(model, type) else ()


def _described(module: Any) -> Iterable[tuple[tuple[str, str], str]]:
    """Yield the docstrings of a module's classes, type aliases and fields.

    Each comes with the name of the class or alias and that of the field, which is empty for the
    class itself. Python keeps no docstrings of fields, so they are read from the source.
    """
    body = ast.parse(inspect.getsource(module)).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.TypeAlias) and (said := _docstring(after)):
            yield (node.name.id, ""), said
        if not isinstance(node, ast.ClassDef):
            continue
        if said := ast.get_docstring(node):
            yield (node.name, ""), said
        for field, comment in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and (said := _docstring(comment)):
                yield (node.name, ast.unparse(field.target)), said


def _docstring(node: ast.stmt | None) -> str | None:
    match node:
        case ast.Expr(ast.Constant(str(said))):
            return inspect.cleandoc(said)
    return None
