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


_DEFINITIONS = "#/$defs/"


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
    return {"$schema": _Schema.schema_dialect, **_renamed(found)}


def _renamed(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace module paths, which pydantic puts before names that two classes share."""
    new: dict[str, str] = {}
    for old in schema["$defs"]:
        name = _plain_name(old)
        # Faults of two packages may share a name; then the package tells them apart.
        new[old] = name if name not in new.values() else f"{old.partition('__')[0].title()}{name}"

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str):
            return value | {"$ref": _DEFINITIONS + new[reference.removeprefix(_DEFINITIONS)]}
        return {key: walk(item) for key, item in value.items()}

    definitions = {new[old]: walk(definition) for old, definition in schema["$defs"].items()}
    return {**walk({k: v for k, v in schema.items() if k != "$defs"}), "$defs": definitions}


def _plain_name(definition: str) -> str:
    """Return `LatencyFault` for `counterfault__proxy__faults__latency__Latency`."""
    *modules, name = definition.split("__")
    if not modules:
        return name
    if "faults" in modules:
        return f"{name}Fault"
    return f"{name}Metric" if "steady_state" in modules else f"{modules[-1].title()}{name}"


def schema_text(model: type[BaseModel]) -> str:
    """Return the content of a model's schema file."""
    return json.dumps(schema_of(model), indent=2, sort_keys=True) + "\n"


def write_schemas(directory: Path) -> None:
    """Write each model's schema to a file such as `sidecar.schema.json`. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, model in MODELS.items():
        (directory / f"{name}.schema.json").write_text(schema_text(model), encoding="utf-8")
