"""`dora logs --follow` over two machines, while coordinator and daemon are killed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.dora import RunningDora, running_dora
from support.fleets.daemons import real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

TALKER = """
import sys
from dora import Node

for number, event in enumerate(Node()):
    if event["type"] == "INPUT":
        print(number, flush=True)
"""


def entries(process: RunningDora) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in process.stdout.splitlines(keepends=True) if line[-1] == "\n"
    ]


def numbers(process: RunningDora, node: str) -> list[int]:
    found = [one for one in entries(process) if one.get("node") == node and one["msg"].isdigit()]
    return [int(one["msg"]) for one in found]


def wait_for_more(process: RunningDora, *nodes: str) -> None:
    before = {node: len(numbers(process, node)) for node in nodes}
    wait_until(
        lambda: all(len(numbers(process, node)) > count + 5 for node, count in before.items()),
        what=lambda: f"more lines of {nodes}: {process.stderr}",
    )


def test_lines_are_complete_over_restarts(workspace: Workspace) -> None:
    workspace.node("talker", TALKER)
    tick = "dora/timer/millis/50"
    nodes = [
        {"id": id, "path": "talker.py", "inputs": {"tick": tick}, "deploy": {"machine": id}}
        for id in ("robot", "station")
    ]
    with real_fleet(workspace, "robot", "station") as fleet:
        fleet.start(workspace.dataflow({"nodes": nodes}), "--name", "a")
        port = ("--coordinator-port", str(fleet.port))
        words = ("logs", "a", "--follow", "--log-format", "json", *port)
        with running_dora(*words, cwd=workspace.path) as follower:
            wait_for_more(follower, "robot", "station")
            wait_for_more(follower, "robot", "station")
            fleet.coordinator.process.kill()
            follower.wait_for("waiting for it")
            fleet.restart_coordinator()
            wait_for_more(follower, "robot", "station")
            fleet.daemons["station"].kill()
            wait_for_more(follower, "robot")
            fleet.start_daemon("station")
            wait_for_more(follower, "station")
            fleet.dora("stop")
            follower.wait().succeeded()
            for node in ("robot", "station"):
                found = numbers(follower, node)
                assert found == list(range(len(found)))


def test_ctrl_c_ends_it_and_a_wrong_name_is_refused(workspace: Workspace) -> None:
    workspace.node("talker", TALKER)
    node = {"id": "talker", "path": "talker.py", "inputs": {"tick": "dora/timer/millis/20"}}
    with real_fleet(workspace, None) as fleet:
        fleet.start(workspace.dataflow({"nodes": [node]}))
        port = ("--coordinator-port", str(fleet.port))
        with running_dora("logs", "-f", *port, cwd=workspace.path) as follower:
            follower.wait_for("talker: 3")
            follower.interrupt()
            follower.wait().succeeded()
        assert 'no dataflow with name "x"' in fleet.dora("logs", "-f", "x", code=1).stderr
        fleet.coordinator.process.kill()
        with running_dora("logs", "-f", *port, cwd=workspace.path) as follower:
            follower.wait_for("no coordinator answers: reading the log files")
            follower.wait_for("talker: 3")
            follower.interrupt()
            follower.wait().succeeded()
