"""JSON Schemas contain every field, accept what loads and refuse what does not."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
from config.cluster.test_models import GUIDE, MISTAKES as CLUSTER_MISTAKES
from config.dataflow.test_flattening import EYE, FLOW
from config.dataflow.test_reader import NODE, OPERATORS, ROOT
from config.parsing import with_node

from dora_config.dataflow.descriptor import Descriptor, Node
from dora_config.render.schema import FileKind, json_schema
from dora_config.yaml.reader import read_document

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = sorted(
    path for path in (REPOSITORY / "examples").glob("*/*.yml") if path.parent.name != "ros2"
)

# What a schema cannot express: values of one field that another one names, shell quoting, the
# environment, lower bounds on times that only warn, and so on.
BEYOND = (
    "needs the output",
    "no `level`",
    "no `quality`",
    "the highest level of",
    "needs the input",
    "needs one output",
    "needs an input",
    "needs an output",
    "needs the transport",
    "quoting",
    "variable $NO",
    "duplicate",
    "not among",
    "does not exist",
    "must not contain '/'",
    "at most one operator",
    "only allowed when `path`",
    "a shell node needs",
    "needs an output",
    'is "op/x"',
    "add it:",
    "belong",
    "finite number",
    "must be at least 1",
    "NUL",
)


@cache
def validator(kind: FileKind) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        json_schema(kind), format_checker=jsonschema.FormatChecker()
    )


def is_valid(kind: FileKind, text: str) -> bool:
    data = read_document(dedent(text), "f").data
    return bool(validator(kind).is_valid(data))


@pytest.mark.parametrize("kind", ["dataflow", "module", "cluster"])
def test_schemas_are_schemas(kind: FileKind) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(kind))


@pytest.mark.parametrize("path", EXAMPLES, ids=[f"{p.parent.name}/{p.name}" for p in EXAMPLES])
def test_examples_are_valid(path: Path) -> None:
    assert is_valid("dataflow", path.read_text())


GOOD = [
    FLOW,
    "nodes: []",
    "nodes: [{id: a, path: p, env: }]",
    "nodes: [{id: a, path: p, env: {A: 1, B: true, C: x, D: {__dora_env: H}}}]",
    "nodes: [{id: a, path: p, inputs: {x: b/c, y: {source: b/c, queue_size: 1}}}]",
    "nodes: [{id: a, path: p, inputs: {x: dora/timer/hz/0.5, y: dora/logs/WARN/b, z: b/c/d}}]",
    "nodes: [{id: a, path: p, max_log_size: 5MB, shared_memory_pool_size: 1024}]",
    "nodes: [{id: a, path: p, _unstable_deploy: {machine: m, labels: {a: b}}}]",
    "_unstable_debug: {enable_debug_inspection: true}\nnodes: []",
    "nodes: [{id: a, operator: {python: a.py}}]",
    "nodes: [{id: a, operators: [{id: b, python: {source: a.py}}], deploy: {machine: m}}]",
    "nodes: [{id: a, path: p, git: u, branch: b}]",
    "nodes: [{id: a, path: p, hub: ~, min_log_level: Warn}]",
    "nodes: [{id: a, path: p, min_log_level: warning}, {id: b, path: p, min_log_level: INFO}]",
    "nodes: [{id: a, operator: {python: {source: p, conda_env: }, shared-library: }, args: }]",
    "type_rules: [{from: a/b, to: c/d}]\nnodes: []",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_dataflows_are_valid(text: str) -> None:
    assert is_valid("dataflow", text)


@pytest.mark.parametrize("text", ["min_log_level: loud", "min_log_level: WARNED", "args: x"])
def test_what_is_next_to_good_is_not(text: str) -> None:
    assert not is_valid("dataflow", f"nodes: [{{id: a, operator: {{python: p}}, {text}}}]")
    assert is_valid("dataflow", f"nodes: [{{id: a, path: p, {text}}}]") == (text == "args: x")


def test_good_modules_and_clusters_are_valid() -> None:
    assert is_valid("module", EYE)
    assert not is_valid("dataflow", EYE)
    assert is_valid("cluster", GUIDE)
    scoped = "coordinator: {addr: fe80::1%eth0}\nmachines: [{id: a, host: a}]"
    assert is_valid("cluster", scoped)
    assert not is_valid("cluster", scoped.replace("fe80::1%", "fe80 "))
    assert not is_valid("cluster", "nodes: []")
    reached = "coordinator: {addr: 1.2.3.4, host: c, user: op}\nmachines: [{id: a, host: a}]"
    assert is_valid("cluster", reached)


BAD = [
    *(pair for pair in ROOT if not any(part in pair[1] for part in BEYOND)),
    *((with_node(text), message) for text, message in [*NODE, *OPERATORS]),
]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pair
        for pair in BAD
        if not any(part in pair[1] for part in BEYOND) and "old name" not in pair[1]
    ],
)
def test_bad_dataflows_are_not(text: str, message: str) -> None:
    assert not is_valid("dataflow", text), message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pair
        for pair in CLUSTER_MISTAKES
        if not any(
            part in pair[1]
            for part in (
                "duplicate",
                "exclusive",
                "tcp/HOST",
                "'@'",
                "in `user`",
                "requires an address",
                "and `dora` an",
                "one line of text",
                "public address",
            )
        )
    ],
)
def test_bad_clusters_are_not(text: str, message: str) -> None:
    assert not is_valid("cluster", text), message


def test_every_field_is_described() -> None:
    schema = json_schema("dataflow")
    fields: dict[str, Any] = {**schema["properties"], **schema["$defs"]["Node"]["properties"]}
    known = {*Descriptor.model_fields, *Node.model_fields}
    assert known - {"hub"} <= fields.keys()
    for name, field in fields.items():
        assert "description" in field or field == {"type": "null"}, name
