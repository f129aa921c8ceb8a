"""Kinds of nodes of plug-ins: read, checked, resolved and written again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.plugin_wheels import PluginWheels, plugin_wheels

from dora_config import plugins
from dora_config.dataflow.expand import describe_dataflow
from dora_config.dataflow.loader import LoadedDataflow, load_dataflow
from dora_config.errors import ConfigError
from dora_config.plugins import Plugins
from dora_config.render.schema import json_schema

KIND = '''
from dora_config.dataflow.fields import Written
from dora_config.dataflow.node_kinds import NodeKind

class Camera(Written):
    """A camera."""
    device: int
    rate: int | None = None

def problems(block, inputs, outputs, place, where):
    if not outputs:
        yield place.at("device").problem(f"{where}: a camera needs an output")

def warnings(block, folder, env):
    if block.device > 9:
        yield ("device",), f"no camera {block.device}"

KIND = NodeKind(
    model=Camera,
    module="camera_node",
    variable="CAMERA",
    problems=problems,
    resolve=lambda block, inputs, outputs: {"device": block.device, "output": outputs[0]},
    warnings=warnings,
)
'''
Load = Callable[[str], LoadedDataflow]


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    monkeypatch.delitem(sys.modules, "camera_kind", raising=False)
    for wheels in plugin_wheels(tmp_path, monkeypatch):
        additions = {"dora.node_kinds": {"camera": "camera_kind:KIND"}}
        wheels.install("dora-camera", additions, camera_kind=KIND)
        yield wheels


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(node: str) -> LoadedDataflow:
        path = tmp_path / "dataflow.yml"
        path.write_text(f"nodes: [{{id: eye, {node}}}]")
        return load_dataflow(path, check_paths=True)

    return load


@pytest.mark.usefixtures("wheels")
def test_a_node_of_a_plug_in_is_resolved(load: Load) -> None:
    loaded = load("camera: {device: 2}, outputs: [image]")
    [node] = loaded.resolved.nodes
    assert (node.kind, node.block) == ("camera", {"device": 2, "output": "image"})
    [described] = describe_dataflow(loaded.resolved)["nodes"]
    assert described["camera"] == node.block
    assert loaded.warnings == ()


@pytest.mark.usefixtures("wheels")
def test_the_plug_in_checks_the_node(load: Load) -> None:
    with pytest.raises(ConfigError, match='node "eye": a camera needs an output'):
        load("camera: {device: 2}")
    with pytest.raises(ConfigError, match=r"unknown field `devise` .*did you mean `device`"):
        load("camera: {device: 2, devise: 3}, outputs: [image]")
    with pytest.raises(ConfigError, match="has `path` and `camera`: expected exactly one of"):
        load("camera: {device: 2}, path: a.py, outputs: [image]")
    with pytest.raises(ConfigError, match="`args` is among the fields that are not allowed on cam"):
        load("camera: {device: 2}, args: a, outputs: [image]")
    [warning] = load("camera: {device: 12}, outputs: [image]").warnings
    assert (warning.column, warning.message) == (36, 'node "eye": no camera 12')


@pytest.mark.usefixtures("wheels")
def test_the_schema_has_the_field_of_the_plug_in() -> None:
    definitions = json_schema("dataflow")["$defs"]
    assert definitions["Node"]["properties"]["camera"]["description"] == "A camera."
    assert definitions["Camera"]["required"] == ["device"]


NODE = """
def problems(arguments, inputs, outputs):
    if len(arguments) != len(inputs):
        yield f"{len(inputs)} inputs have {len(arguments)} arguments"
    for word in arguments:
        yield f"{int(word)} goes to {outputs[0]}"
"""


def test_a_plug_in_checks_the_arguments_of_its_node(wheels: PluginWheels, load: Load) -> None:
    sys.modules.pop("plotter", None)
    additions = {"dora.node_arguments": {"plot": "plotter:problems"}}
    wheels.install("dora-plot", additions, plotter=NODE)
    with pytest.raises(
        ConfigError, match=r':1:37: node "eye": 0 inputs have 1 arguments\n'
    ) as error:
        load("path: plot, args: '7', outputs: [image]")
    assert 'node "eye": 7 goes to image' in str(error.value)
    with pytest.raises(ConfigError, match=r':1:25: node "eye": 1 inputs have 0 arguments'):
        load("path: plot, inputs: {tick: dora/timer/secs/1}")
    for other in ("path: plot.py, args: '7'", "path: ./plot, args: '7'", "path: plot"):
        assert load(other).resolved.nodes
    broken = "inputs: {tick: dora/timer/secs/1}, path: plot, args: x"
    [warning] = [one.message for one in load(broken).warnings if "plug-in" in one.message]
    assert warning.startswith(
        "the check of the arguments of the node `plot` of the plug-in dora-plot 0.3 cannot be used"
        " (ValueError: "
    )


def test_a_missing_plug_in_is_named(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "installed", lambda: Plugins([], {}))
    with pytest.raises(ConfigError) as error:
        load("ros2: {topic: /x}, outputs: [x]")
    assert ':1:19: node "eye": the kind of nodes `ros2:` is part of the wheel dora-ros2' in str(
        error.value
    )


def test_a_dataflow_without_plug_ins_reads_no_metadata(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "installed", None)
    assert load("path: shell, args: 'true'").warnings == ()
