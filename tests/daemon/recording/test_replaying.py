"""The dataflow of a replay."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from dora_daemon.recording.replaying import CannotReplay, Replay, recorded_nodes, replay_dataflow

DATAFLOW: dict[str, Any] = {
    "nodes": [
        {"id": "camera", "path": "camera.py", "outputs": ["image"], "build": "make"},
        {
            "id": "detector",
            "path": "detector.py",
            "inputs": {"image": "camera/image", "tick": "dora/timer/millis/5"},
            "outputs": ["box"],
        },
        {"id": "runtime", "operators": [{"id": "op", "python": "op.py", "outputs": ["o"]}]},
    ]
}
REPLAY = Replay(("/r/a $b.mcap",), "/usr/bin/python", 2.0, loop=True, start=5, end=9)


def test_recorded_nodes_become_players() -> None:
    camera, detector, _ = replay_dataflow(DATAFLOW, ["camera"], REPLAY)["nodes"]
    assert camera.keys() == {"id", "path", "args", "outputs"}
    words = shlex.split(camera["args"].replace("$$", "$"))
    assert words[words.index("--node") + 1] == "camera"
    assert words[words.index("--speed") + 1] == "2"
    assert words[words.index("--end") + 1] == "9"
    assert "--loop" in words
    assert words[-1] == "/r/a $b.mcap"
    assert detector == DATAFLOW["nodes"][1]


def test_at_speed_0_inputs_from_players_drop_nothing() -> None:
    replay = replace(REPLAY, speed=0.0)
    detector = replay_dataflow(DATAFLOW, ["camera"], replay)["nodes"][1]
    assert detector["inputs"] == {
        "image": {"source": "camera/image", "queue_policy": "backpressure"},
        "tick": "dora/timer/millis/5",
    }


def test_nodes_are_chosen_among_those_that_were_recorded() -> None:
    topics = ["camera/image", "detector/box", "runtime/op/o"]
    assert recorded_nodes(DATAFLOW, topics, None) == ["camera", "detector"]
    assert recorded_nodes(DATAFLOW, topics, ["detector"]) == ["detector"]
    with pytest.raises(CannotReplay, match='node "runtime" cannot be replayed'):
        recorded_nodes(DATAFLOW, topics, ["runtime"])
    with pytest.raises(CannotReplay, match=r"recorded nodes: camera$"):
        recorded_nodes(DATAFLOW, ["camera/image"], ["detector"])
    with pytest.raises(CannotReplay, match="has no messages"):
        recorded_nodes(DATAFLOW, [], None)
