"""`dora expand` and `dora schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Dora

MODULE = """\
module: {name: filter, inputs: [raw], inputs_optional: [cfg], outputs: [clean]}
nodes:
  - id: a
    path: a.py
    inputs: {x: _mod/raw, c: {source: _mod/cfg, queue_size: 2}}
    outputs: [y]
  - id: b
    path: b.py
    inputs: {y: a/y}
    outputs: [clean]
"""

USER = """\
nodes:
  - {id: s, path: s.py, outputs: [o]}
  - {id: f, module: filter.yml, inputs: {raw: s/o}}
  - {id: t, path: t.py, inputs: {c: f/clean}}
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "user.yml").write_text(USER)
    path = tmp_path / "filter.yml"
    path.write_text(MODULE)
    return path


def test_the_expanded_file_is_the_same_dataflow(dora: Dora, module: Path, tmp_path: Path) -> None:
    flat = dora("expand", "user.yml")
    assert flat.code == 0
    (tmp_path / "flat.yml").write_text(flat.out)
    assert dora("expand", "flat.yml").out == flat.out
    assert dora("graph", "--mermaid", "flat.yml").out == dora("graph", "--mermaid", "user.yml").out


def test_a_module_is_summarized(dora: Dora, module: Path) -> None:
    shown = dora("expand", "--module", "filter.yml")
    assert (shown.code, shown.out) == (
        0,
        "filter.yml: module filter: 2 nodes (a, b), inputs raw, cfg (optional), outputs clean\n",
    )


def test_a_wrong_module_is_reported_with_its_line(dora: Dora, module: Path) -> None:
    module.write_text(MODULE.replace("y: a/y", "y: a/z"))
    shown = dora("expand", "--module", "filter.yml")
    assert shown.code == 1
    assert shown.err.startswith("[ERROR]\nfilter.yml:9:17: ")


@pytest.mark.parametrize("kind", ["dataflow", "module", "cluster"])
def test_schemas_are_json(dora: Dora, kind: str) -> None:
    schema = json.loads(dora("schema", kind).out)
    assert schema["title"] == f"dora {kind} file"
