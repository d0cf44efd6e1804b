"""The JSON schema of pipeline files, for editors and other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core.core_schema import ModelSchema

from pipeline.config.description import descriptions
from pipeline.config.model import Pipeline
from pipeline.config.name import NAME_PATTERN
from pipeline.operations.base import Operation
from pipeline.operations.registry import owner_of, registry


def schema(operations: Mapping[str, type[Operation]] | None = None) -> dict[str, Any]:
    """Return the JSON schema of pipeline files; a step is one of all operations, told apart by `op`."""
    known = registry() if operations is None else operations
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [(Pipeline, "validation")]
    models += [(operation, "validation") for operation in known.values()]
    references, definitions = models_json_schema(models, schema_generator=_Described)
    defs = definitions["$defs"]
    by_op = {op: references[operation, "validation"]["$ref"] for op, operation in known.items()}
    for op, reference in by_op.items():
        definition = defs[reference.rpartition("/")[2]]
        _require_name(definition)
        if owner := owner_of(known[op]):
            definition["description"] = f"{definition.get('description', '')} (Of {owner}.)".lstrip()
    result = defs.pop(references[Pipeline, "validation"]["$ref"].rpartition("/")[2])
    result["properties"]["steps"]["items"] = {
        "type": "object",
        "required": ["name", "op"],
        "properties": {"op": {"enum": list(known), "description": "The operation."}},
        "discriminator": {"propertyName": "op", "mapping": by_op},
        "oneOf": [{"$ref": reference} for reference in by_op.values()],
    }
    result["properties"]["inputs"]["propertyNames"] = {"pattern": f"^{NAME_PATTERN}$"}
    defs.pop("Operation", None)  # a step is always one of the registered ones
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result, "$defs": defs}


class _Described(GenerateJsonSchema):
    """Puts what the source says of a field into its description."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        cls = schema["cls"]
        keys = {field.alias or name: name for name, field in cls.model_fields.items()}
        texts = descriptions(cls)
        for key, entry in result.get("properties", {}).items():
            if text := texts.get(keys.get(key, key)):
                entry.setdefault("description", text)
        return result


def _require_name(definition: dict[str, Any]) -> None:
    required = definition.get("required", [])
    definition["required"] = ["name", "op", *(key for key in required if key not in ("name", "op"))]
    definition["properties"]["name"]["pattern"] = f"^{NAME_PATTERN}$"
    definition["properties"]["name"].pop("default", None)
