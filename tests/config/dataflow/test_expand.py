"""Flat YAML: what is left out, what is escaped."""

from __future__ import annotations

from pathlib import Path

from config.parsing import parse

from dora_config import expand_dataflow, load_dataflow, parse_dataflow


def test_defaults_are_left_out() -> None:
    text = "nodes:\n  - id: a\n    path: p\n    inputs:\n      t: dora/timer/millis/50\n"
    assert expand_dataflow(parse(text).resolved) == text


def test_values_that_look_like_something_else_are_quoted() -> None:
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


def test_no_placement_where_the_root_has_one() -> None:
    flow = parse("deploy: {machine: m}\nnodes: [{id: a, path: p, deploy: {}}, {id: b, path: p}]")
    again = parse(expand_dataflow(flow.resolved)).resolved
    assert again.node("a").deploy.machine is None
    assert again.node("b").deploy.machine == "m"


def test_an_empty_dataflow() -> None:
    assert expand_dataflow(parse("nodes: []").resolved) == "nodes: []\n"
