"""The OpenAPI document of the REST API."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from dora_config.protocol.rest import openapi, paths
from dora_config.protocol.rest.operations import OPERATIONS

METHODS = {"get", "post"}


def _schema_of_body(path: str) -> dict[str, Any]:
    operation = openapi.document()["paths"][path]["post"]
    found: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return found


def test_the_document_is_valid() -> None:
    validate(openapi.document())


def test_each_operation_is_described_once() -> None:
    described = {
        (method.upper(), path)
        for path, methods in openapi.document()["paths"].items()
        for method in methods
    }
    operations = [(one.method, one.path) for one in OPERATIONS]
    assert len(operations) == len(set(operations)) == len({one.name for one in OPERATIONS})
    assert described == {*operations, ("GET", paths.OPENAPI)}
    for methods in openapi.document()["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith(".")
            assert {"200", "201"} & operation["responses"].keys()
            assert "401" in operation["responses"]


def test_parameters_of_a_path_are_those_of_its_template() -> None:
    for path, methods in openapi.document()["paths"].items():
        for operation in methods.values():
            in_path = [one for one in operation.get("parameters", []) if one["in"] == "path"]
            assert all(f"{{{one['name']}}}" in path and one["required"] for one in in_path)
            assert path.count("{") == len(in_path)


def test_bodies_have_the_arguments_that_are_not_in_the_path() -> None:
    stop = _schema_of_body("/api/dataflows/{dataflow}/stop")
    assert set(stop["properties"]) == {"grace", "force"}
    start = _schema_of_body("/api/dataflows")
    assert start["required"] == ["descriptor"]
    assert "dataflow" in _schema_of_body("/api/dataflows/stop")["properties"]


@pytest.mark.parametrize("name", ["NodeSummary", "DataflowSummary", "ErrorBody", "ClusterReport"])
def test_schemas_of_results_are_valid(name: str) -> None:
    schema = openapi.document()["components"]["schemas"][name]
    Draft202012Validator.check_schema(schema)
