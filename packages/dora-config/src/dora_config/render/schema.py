"""JSON Schema of dataflow, module, cluster and fleet files, for editors.

It is generated from the models; rules across fields are added here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from dora_config.cluster.fleet import DataflowsFile
from dora_config.cluster.models import FIELDS_OF_HOST, Cluster
from dora_config.dataflow import node_kinds
from dora_config.dataflow.descriptor import Descriptor, Module
from dora_config.dataflow.fields import OLD_NAMES
from dora_config.dataflow.node_kinds import NodeKind
from dora_config.dataflow.node_shape import ALLOWED_FIELDS, FIELDS_BESIDE_A_BLOCK

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
    definitions = schema.get("$defs", {})
    kinds = add_kinds(definitions) if "Node" in definitions else []
    _simplify(schema)
    for added in kinds:
        added.add_rules(definitions[added.model.__name__])
    if "Node" in definitions:
        _add_node_rules(definitions["Node"])
        _add_operator_rules(definitions)
        for model in (schema, definitions["Node"]):
            _add_old_names(model)
    if "Coordinator" in definitions:
        _add_coordinator_rules(definitions["Coordinator"])
    return {
        "$schema": SCHEMA_DIALECT,
        "title": f"dora {kind} file",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def add_kinds(definitions: dict[str, Any]) -> list[NodeKind]:
    """Add the fields of a node that plug-ins have; return their kinds."""
    kinds = {name: node_kinds.load(name) for name in node_kinds.names()}
    for name, kind in kinds.items():
        added = kind.model.model_json_schema(by_alias=True, mode="validation")
        definitions |= added.pop("$defs", {})
        definitions[kind.model.__name__] = added
        definitions["Node"]["properties"][name] = {
            "anyOf": [{"$ref": f"#/$defs/{kind.model.__name__}"}, {"type": "null"}],
            "default": None,
            "description": (kind.model.__doc__ or "").partition("\n")[0],
        }
    return list(kinds.values())


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
    fields: dict[str, frozenset[str]] = dict(ALLOWED_FIELDS.items())
    fields |= dict.fromkeys(node_kinds.names(), FIELDS_BESIDE_A_BLOCK)
    present = [_has(kind) for kind in ("path", *fields)]
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
    for kind, allowed in fields.items():
        foreign = sorted(node["properties"].keys() - allowed - {kind})
        nothing = {name: {"type": "null"} for name in foreign}
        node["allOf"].append({"if": _has(kind), "then": {"properties": nothing}})
    node["allOf"].append({"if": _has("path"), "then": {"not": _has("params")}})


def _add_operator_rules(definitions: dict[str, Any]) -> None:
    """Require code of operators, and ids in lists of operators."""
    definitions["Operator"]["required"] = ["python"]
    several = definitions["Node"]["properties"]["operators"]["anyOf"][0]
    several["minItems"] = 1
    several["items"] = {"allOf": [several["items"], {"required": ["id"]}]}


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
