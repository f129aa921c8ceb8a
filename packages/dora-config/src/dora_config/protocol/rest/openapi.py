"""The OpenAPI document of the REST API, from its operations and the models of their messages."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dora_config.protocol.envelope import PROTOCOL_VERSION
from dora_config.protocol.rest import paths
from dora_config.protocol.rest.models import ErrorBody
from dora_config.protocol.rest.operations import OPERATIONS, Operation

OPENAPI_VERSION = "3.1.0"
_REFERENCE = "#/components/schemas/{model}"
_TAGS = {
    paths.DATAFLOWS: "dataflows",
    paths.MACHINES: "machines",
    paths.NODES: "nodes",
    paths.FLEET: "fleet",
    paths.STATUS: "status",
}
_COMMON_ERRORS = {
    401: "The token is missing or wrong.",
    403: "A page of another site sent the request.",
    426: "Plain HTTP from another machine; use TLS.",
    429: "Too many failed authentications from this address.",
    503: "The coordinator is ending, or too many connections are open.",
}
"""Errors of every operation."""
_OPERATION_ERRORS = {
    400: "An argument is wrong.",
    404: "The dataflow, machine or node does not exist.",
    409: "It contradicts the state of the cluster.",
    500: "It was tried and failed.",
}


@cache
def document() -> dict[str, Any]:
    """Return the document; the caller must not change it."""
    results = {one.result for one in OPERATIONS} | {ErrorBody}
    ordered = sorted(results, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "serialization") for model in ordered], ref_template=_REFERENCE
    )
    components: dict[str, Any] = schemas["$defs"]
    for model in ordered:
        components[model.__name__].get("properties", {}).pop("kind", None)
    routes: dict[str, Any] = {}
    for one in OPERATIONS:
        routes.setdefault(one.path, {})[one.method.lower()] = _operation(one, components)
    routes[paths.OPENAPI] = {"get": _own_operation()}
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "dora coordinator",
            "version": str(PROTOCOL_VERSION),
            "description": "Names in paths are percent-encoded (`/` is `%2F`). Every error has a "
            "JSON body with a sentence.",
        },
        "security": [{"token": []}],
        "paths": routes,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The part of the cluster's token behind its last dot.",
                }
            },
        },
    }


def _operation(operation: Operation[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    schema = operation.arguments.model_json_schema(ref_template=_REFERENCE)
    components.update(schema.pop("$defs", {}))
    in_path = re.findall(r"\{(\w+)\}", operation.path)
    properties: dict[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    others = {name: value for name, value in properties.items() if name not in in_path}
    facts: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [next(tag for path, tag in _TAGS.items() if operation.path.startswith(path))],
    }
    parameters = [_parameter(name, properties[name], "path", required=True) for name in in_path]
    if operation.method == "GET":
        parameters += [
            _parameter(name, value, "query", required=name in required)
            for name, value in others.items()
        ]
    elif others:
        body = {"type": "object", "properties": others, "additionalProperties": False}
        needed = sorted(required - set(in_path))
        facts["requestBody"] = {
            "required": bool(needed),
            "content": {
                paths.JSON_TYPE: {"schema": body | ({"required": needed} if needed else {})}
            },
        }
    if parameters:
        facts["parameters"] = parameters
    statuses = _COMMON_ERRORS | _OPERATION_ERRORS
    facts["responses"] = {
        str(operation.status): _response("The result.", operation.result),
        **{str(status): _response(statuses[status], ErrorBody) for status in sorted(statuses)},
    }
    return facts


def _parameter(name: str, schema: dict[str, Any], place: str, *, required: bool) -> dict[str, Any]:
    rest = {key: value for key, value in schema.items() if key not in ("description", "title")}
    fact: dict[str, Any] = {"name": name, "in": place, "required": required, "schema": rest}
    if "description" in schema:
        fact["description"] = schema["description"]
    return fact


def _response(description: str, model: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"description": description, "content": {paths.JSON_TYPE: {"schema": reference}}}


def _own_operation() -> dict[str, Any]:
    return {
        "operationId": "getOpenapi",
        "summary": "Get this document.",
        "responses": {
            "200": {
                "description": "The document.",
                "content": {paths.JSON_TYPE: {"schema": {"type": "object"}}},
            },
            **{str(code): _response(text, ErrorBody) for code, text in _COMMON_ERRORS.items()},
        },
    }
