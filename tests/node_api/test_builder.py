"""Dataflows written in Python, and the YAML they become."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from dora.builder import DataflowBuilder, Node, Operator, Output
from dora_node_api.builder import to_yaml


def test_a_dataflow() -> None:
    with DataflowBuilder(name="vision") as flow:
        camera = flow.add_node("camera", restart_policy="always").path("camera.py").args("--fast")
        image = camera.add_output("image")
        assert str(camera.add_output("image")) == str(image) == "camera/image"
        plot = flow.add_node("plot").path("plot.py").env({"SIZE": 3}).build("pip install x")
        plot.add_input("picture", image, queue_size=1, queue_policy="backpressure")
        plot.add_input("tick", "dora/timer/hz/10").add_input("again", camera)
        flow.add_node("remote").git("https://example.org/x.git", rev="abc")
        flow.add_node("ops").add_operator(Operator("op", python="op.py", shared_library="x.so"))
    written = yaml.safe_load(flow.to_yaml() or "")
    assert written == flow.to_dict()
    assert written == {
        "nodes": [
            {
                "id": "camera",
                "restart_policy": "always",
                "path": "camera.py",
                "args": "--fast",
                "outputs": ["image"],
            },
            {
                "id": "plot",
                "path": "plot.py",
                "env": {"SIZE": 3},
                "build": "pip install x",
                "inputs": {
                    "picture": {
                        "source": "camera/image",
                        "queue_size": 1,
                        "queue_policy": "backpressure",
                    },
                    "tick": "dora/timer/hz/10",
                    "again": "camera/image",
                },
            },
            {"id": "remote", "git": "https://example.org/x.git", "rev": "abc"},
            {
                "id": "ops",
                "operators": [{"id": "op", "python": "op.py", "shared-library": "x.so"}],
            },
        ]
    }


def test_an_empty_dataflow_and_a_file(tmp_path: Path) -> None:
    flow = DataflowBuilder()
    assert yaml.safe_load(flow.to_yaml() or "") == {"nodes": []}
    assert flow.to_yaml(tmp_path / "flow.yml") is None
    assert yaml.safe_load((tmp_path / "flow.yml").read_text()) == {"nodes": []}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"queue_size": 0}, "queue_size"),
        ({"queue_size": -1}, "queue_size"),
        ({"queue_size": True}, "queue_size"),
        ({"queue_policy": "newest"}, "queue_policy"),
        ({"source": 7}, "source"),
        ({"source": Node("silent")}, "exactly one output"),
    ],
)
def test_wrong_inputs(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Node("n").add_input("in", **{"source": "a/b", **options})


def test_an_output_belongs_to_its_node() -> None:
    node = Node("a")
    output = Output(node, "x")
    assert (output.node, output.output_id, repr(output)) == (node, "x", "Output('a/x')")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["yes", "No", "null", "~", "1e3", "1:30", "0x1f", "a: b", "- x", "#", "é"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner)
    ),
    max_leaves=15,
)


@given(PLAIN)
def test_any_plain_value_survives_yaml(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


def test_odd_values() -> None:
    assert math.isnan(yaml.safe_load(to_yaml([math.nan]))[0])
    with pytest.raises(TypeError, match="object"):
        to_yaml({"x": object()})
