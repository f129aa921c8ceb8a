"""Definitions of single nodes, checked as part of a running dataflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_cli.live.sending import NodeFileError, load_node
from dora_config.dataflow.loader import parse_dataflow
from dora_config.errors import ConfigError, DoraError

RUNNING = parse_dataflow(
    """
env: {COMMON: "1", PRICE: "$$5"}
deploy: {machine: robot}
nodes:
  - {id: camera, path: camera.py, outputs: [image]}
  - {id: plot, path: plot.py, inputs: {image: camera/image}}
"""
).resolved


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.yml"
    path.write_text(text)
    return path


def test_the_dataflow_s_settings_apply(tmp_path: Path) -> None:
    path = write(tmp_path, "# new\n---\nid: new\npath: new.py\ninputs:\n  a: camera/image\n")
    node, warnings = load_node(path, RUNNING)
    assert (node.id, node.env, node.deploy.machine) == (
        "new",
        {"COMMON": "1", "PRICE": "$5"},
        "robot",
    )
    assert not warnings


def test_block_texts_keep_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "id: new\npath: new.py\ndescription: |\n  one\n\n  # two\nargs: x\n")
    node, _ = load_node(path, RUNNING)
    assert node.description == "one\n\n# two\n"


def test_a_replacement_takes_the_place_of_the_old_node(tmp_path: Path) -> None:
    path = write(tmp_path, "id: camera\npath: other.py\noutputs: [image, more]\n")
    node, _ = load_node(path, RUNNING, replaces="camera")
    assert node.path == "other.py"


@pytest.mark.parametrize(
    ("text", "replaces", "message"),
    [
        ("id: x\npat: x.py\n", None, 'node.yml:2:1: node "x": unknown field `pat`'),
        ("id: x\npath: x.py\ninputs: {a: camera/imgae}\n", None, "node.yml:3:13: output"),
        ("id: camera\npath: x.py\n", None, "has a node of this id"),
        ("id: x\npath: x.py\n", "camera", "the ids must be equal"),
        ("id: camera\npath: x.py\n", "camera", "does not fit the running dataflow"),
        ("nodes:\n  - id: x\n", None, "remove the list `nodes`"),
        ("- id: x\n", None, "node.yml"),
        ("", None, "node.yml"),
    ],
)
def test_errors_name_the_place_in_the_file(
    tmp_path: Path, text: str, replaces: str | None, message: str
) -> None:
    with pytest.raises(DoraError) as caught:
        load_node(write(tmp_path, text), RUNNING, replaces=replaces)
    assert isinstance(caught.value, ConfigError | NodeFileError)
    assert message in str(caught.value)
