"""JSON Schemas of the configuration files, made from the models, for completion in editors."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.values.units import human, percent

MODELS: dict[str, type[BaseModel]] = {"sidecar": Sidecar, "experiment": Experiment}


class _Schema(GenerateJsonSchema):
    """Pydantic's schema with defaults as a user would write them, and without invented titles."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        default = found.pop("default", None)
        pattern = found.get("pattern", "")
        if isinstance(default, float) and pattern:
            default = percent(default) if pattern.endswith("%$") else human(default)
        return found | {"default": default} if isinstance(default, bool | int | str) else found

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON Schema, draft 2020-12."""
    found = model.model_json_schema(schema_generator=_Schema)
    return {"$schema": _Schema.schema_dialect, **found}


def schema_text(model: type[BaseModel]) -> str:
    """Return the content of a model's schema file."""
    return json.dumps(schema_of(model), indent=2, sort_keys=True) + "\n"


def write_schemas(directory: Path) -> None:
    """Write each model's schema to a file such as `sidecar.schema.json`. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, model in MODELS.items():
        (directory / f"{name}.schema.json").write_text(schema_text(model), encoding="utf-8")
