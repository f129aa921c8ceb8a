"""JSON Schema of dataflow, module, cluster and fleet files, for editors; pure.

It is generated from the models; rules across fields are added here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from dora_config.cluster.fleet import DataflowsFile
from dora_config.cluster.models import FIELDS_OF_HOST, Cluster
from dora_config.dataflow.descriptor import Descriptor, Module
from dora_config.dataflow.fields import OLD_NAMES
from dora_config.dataflow.node_shape import ALLOWED_FIELDS, KINDS
from dora_config.dataflow.ros2 import MAX_TOPICS, MODES

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

FileKind = Literal["dataflow", "module", "cluster", "fleet"]
_MODELS: dict[FileKind, type[BaseModel]] = {
    "dataflow": Descriptor,
    "module": Module,
    "cluster": Cluster,
    "fleet": DataflowsFile,
}


def json_schema(kind: FileKind) -> dict[str, Any]:
    """Return the schema of one kind of file as plain values."""
    schema = _MODELS[kind].model_json_schema(by_alias=True, mode="validation")
    _simplify(schema)
    definitions = schema.get("$defs", {})
    if "Node" in definitions:
        _add_node_rules(definitions["Node"])
        _add_operator_rules(definitions)
        _add_bridge_rules(definitions["Ros2"])
        for model in (schema, definitions["Node"]):
            _add_old_names(model)
    if "Coordinator" in definitions:
        _add_coordinator_rules(definitions["Coordinator"])
    return {
        "$schema": SCHEMA_DIALECT,
        "title": f"dora {kind} file",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _simplify(part: Any) -> None:
    """Remove titles and defaults, and allow null for fields that may be left out."""
    if isinstance(part, list):
        for item in part:
            _simplify(item)
    if not isinstance(part, dict):
        return
    if isinstance(part.get("title"), str):
        del part["title"]
    for field in part.get("properties", {}).values():
        null = {"type": "null"}
        if "default" in field and "null" not in str(field.get("anyOf", field.get("type"))):
            described = {key: field.pop(key) for key in ("default", "description") if key in field}
            field["anyOf"] = [{key: field.pop(key) for key in list(field)}, null]
            field.update(described)
    part.pop("default", None)
    if "patternProperties" in part:
        part["additionalProperties"] = False
    for value in part.values():
        _simplify(value)


def _add_node_rules(node: dict[str, Any]) -> None:
    """Allow one kind with its fields, and one git reference only with git."""
    present = [_has(kind) for kind in KINDS]
    references = ("branch", "tag", "rev")
    node["oneOf"] = present
    node["allOf"] = [
        {"not": {"allOf": [_has(first), _has(second)]}}
        for index, first in enumerate(references)
        for second in references[index + 1 :]
    ]
    node["allOf"].extend(
        {"if": _has(reference), "then": {"required": ["git"]}} for reference in references
    )
    for kind, fields in ALLOWED_FIELDS.items():
        foreign = sorted(node["properties"].keys() - fields)
        nothing = {name: {"type": "null"} for name in foreign}
        node["allOf"].append({"if": _has(kind), "then": {"properties": nothing}})
    node["allOf"].append({"if": _has("path"), "then": {"not": _has("params")}})


def _add_operator_rules(definitions: dict[str, Any]) -> None:
    """Require code of operators, and ids in lists of operators."""
    definitions["Operator"]["required"] = ["python"]
    several = definitions["Node"]["properties"]["operators"]["anyOf"][0]
    several["minItems"] = 1
    several["items"] = {"allOf": [several["items"], {"required": ["id"]}]}


def _add_bridge_rules(bridge: dict[str, Any]) -> None:
    """Allow one mode; require type and role of services and actions, and few topics."""
    bridge["oneOf"] = [_has(mode) for mode in MODES]
    bridge["allOf"] = [
        {"if": _has(mode), "then": {"allOf": [_has(f"{mode}_type"), _has("role")]}}
        for mode in ("service", "action")
    ]
    bridge["properties"]["topics"]["anyOf"][0] |= {"minItems": 1, "maxItems": MAX_TOPICS}


def _add_coordinator_rules(definition: dict[str, Any]) -> None:
    """Require `host` for the fields of its ssh connection."""
    none = {"not": {"anyOf": [_has(field) for field in FIELDS_OF_HOST]}}
    definition["anyOf"] = [_has("host"), none]


def _has(field: str) -> dict[str, Any]:
    return {"required": [field], "properties": {field: {"not": {"type": "null"}}}}


def _add_old_names(model: dict[str, Any]) -> None:
    properties = model["properties"]
    for new, old in OLD_NAMES.items():
        if new in properties:
            properties[old] = {
                **{key: value for key, value in properties[new].items() if key != "description"},
                "description": f"Old name of `{new}`.",
            }
