"""The dataflow of a replay."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from dora_recordings.replaying import CannotReplay, Replay, recorded_nodes, replay_dataflow

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


def lossless(*nodes: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = replay_dataflow(
        {"nodes": list(nodes)}, ["camera"], replace(REPLAY, speed=0.0)
    )["nodes"]
    return found


def waiting(source: str, **more: Any) -> dict[str, Any]:
    return {"source": source, **more, "queue_policy": "backpressure"}


def test_at_speed_0_all_inputs_from_nodes_wait() -> None:
    newest = {"source": "detector/box", "queue_size": 1, "queue_policy": "drop_oldest"}
    operator = {"id": "op", "inputs": {"box": newest}, "outputs": ["o"]}
    _, detector, runtime, sink = lossless(
        *DATAFLOW["nodes"][:2],
        {"id": "runtime", "operators": [operator]},
        {"id": "sink", "operator": {"inputs": {"o": "runtime/op/o"}}},
    )
    assert detector["inputs"] == {"image": waiting("camera/image"), "tick": "dora/timer/millis/5"}
    assert runtime["operators"][0]["inputs"] == {"box": waiting("detector/box", queue_size=1)}
    assert sink["operator"]["inputs"] == {"o": waiting("runtime/op/o")}


def test_at_speed_0_the_edge_that_closes_a_cycle_does_not_wait() -> None:
    back = {"source": "planner/state", "queue_size": 1}
    _, detector, planner = lossless(
        DATAFLOW["nodes"][0],
        {"id": "detector", "inputs": {"state": back, "image": "camera/image"}},
        {"id": "planner", "inputs": {"box": "detector/box"}},
    )
    assert detector["inputs"] == {"state": back, "image": waiting("camera/image")}
    assert planner["inputs"] == {"box": waiting("detector/box")}


def test_at_speed_0_lines_of_nodes_do_not_wait() -> None:
    printing = {"id": "op", "send_stdout_as": "lines", "outputs": ["lines"]}
    inputs = {"logs": "dora/logs", "lines": "runtime/op/lines", "entries": "plain/entries"}
    nodes = lossless(
        DATAFLOW["nodes"][0],
        {"id": "runtime", "operators": [printing]},
        {"id": "plain", "send_logs_as": "entries", "outputs": ["entries"]},
        {"id": "sink", "inputs": inputs},
    )
    assert nodes[-1]["inputs"] == inputs


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
