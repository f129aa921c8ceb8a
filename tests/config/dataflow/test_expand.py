"""Flat YAML: omitted defaults, escaped texts."""

from __future__ import annotations

import json
from pathlib import Path

from config.parsing import parse

from dora_config.dataflow.expand import dataflow_to_dict, expand_dataflow
from dora_config.dataflow.loader import load_dataflow, parse_dataflow
from dora_config.dataflow.node_shape import SHARED_FIELDS


def test_defaults_are_left_out() -> None:
    text = "nodes:\n  - id: a\n    path: p\n    inputs:\n      t: dora/timer/millis/50\n"
    assert expand_dataflow(parse(text).resolved) == text


def test_ambiguous_values_are_quoted() -> None:
    flow = parse("nodes: [{id: a, path: p, env: {A: '01', B: '1.10', C: 'yes', D: '$$x', E: ''}}]")
    again = parse(expand_dataflow(flow.resolved))
    assert again.resolved.node("a").env == {"A": "01", "B": "1.10", "C": "yes", "D": "$x", "E": ""}


def test_modules_are_flat(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/m.yml").write_text(
        "module: {name: m, outputs: [o]}\nnodes: [{id: i, path: i.py, outputs: [o]}]\n"
    )
    path = tmp_path / "flow.yml"
    path.write_text(
        "env: {R: 1}\nnodes:\n  - {id: x, module: sub/m.yml, params: {k: 5}}\n"
        "  - {id: s, path: s.py, inputs: {o: x/o}}\n"
    )
    loaded = load_dataflow(path)
    text = expand_dataflow(loaded.resolved)
    assert "module" not in text
    assert parse_dataflow(text, path=path).resolved == loaded.resolved


def test_node_without_placement_below_a_root_with_one() -> None:
    flow = parse("deploy: {machine: m}\nnodes: [{id: a, path: p, deploy: {}}, {id: b, path: p}]")
    again = parse(expand_dataflow(flow.resolved)).resolved
    assert again.node("a").deploy.machine is None
    assert again.node("b").deploy.machine == "m"


def test_operator_nodes_keep_all_fields_that_nodes_share() -> None:
    fields = {
        "id": "a",
        "name": "n",
        "description": "d",
        "env": {"A": "b"},
        "deploy": {"machine": "m"},
        "cpu_affinity": [0],
        "warm": ["numpy"],
    }
    assert fields.keys() == SHARED_FIELDS
    flow = parse(json.dumps({"nodes": [{**fields, "operator": {"python": "op.py"}}]}))
    expanded = dataflow_to_dict(flow.resolved)["nodes"][0]
    assert {name: expanded.get(name) for name in fields} == fields


def test_an_empty_dataflow() -> None:
    assert expand_dataflow(parse("nodes: []").resolved) == "nodes: []\n"


def test_each_node_of_a_described_dataflow_has_inputs_and_outputs(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(
        "module: {name: m, inputs: [i]}\nnodes: [{id: q, path: q.py, inputs: {z: _mod/i}}]\n"
    )
    path = tmp_path / "flow.yml"
    path.write_text(
        "env: {R: $$x}\nnodes:\n"
        "  - {id: a, path: a.py, args: --foo bar, env: {Y: 2}, outputs: [out]}\n"
        "  - {id: m, module: m.yml, inputs: {i: a/out}}\n"
        "  - {id: s, operator: {python: op.py, inputs: {i: a/out}, outputs: [k]}}\n"
        "  - {id: t, operators: [{id: one, python: op.py}, {id: two, python: op.py}]}\n"
    )
    described = load_dataflow(path).descriptor_dict
    assert described["env"] == {"R": "$x"}
    a, q, s, t = described["nodes"]
    assert a == {
        "id": "a",
        "name": None,
        "description": None,
        "path": "a.py",
        "args": "--foo bar",
        "env": {"Y": "2"},
        "inputs": {},
        "outputs": ["out"],
        "restart_policy": "never",
        "max_restarts": 0,
        "deploy": None,
    }
    assert (q["id"], q["inputs"], q["outputs"]) == ("m.q", {"z": "a/out"}, [])
    assert (s["inputs"], s["outputs"], s["operator"]["id"]) == ({}, [], None)
    assert (s["operator"]["inputs"], s["operator"]["outputs"]) == ({"i": "a/out"}, ["k"])
    assert [(o["id"], o["inputs"], o["outputs"]) for o in t["operators"]] == [
        ("one", {}, []),
        ("two", {}, []),
    ]
