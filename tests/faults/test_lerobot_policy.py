"""A policy or a script that drives an arm from another machine, and fails or is cut off.

The arm counts its observations as its position, and the policy wants it at the next ones: so each
action that is executed tells how old the observation was that it follows. The script sends the
time, which is the same for all on this computer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fleets.cables import Cable, cable, require_networks
from support.fleets.daemons import RealFleet, real_fleet
from support.waiting import let_last, wait_until
from support.workspace import Workspace

ARM = """
    import time
    from pathlib import Path

    from dora import Node
    from lerobot_robot_dora.robot_node import run


    class Arm:
        observation_features = action_features = {"a.pos": float}
        count = 0
        file = Path("actions").open("a")

        def get_observation(self):
            self.count += 1
            return {"a.pos": self.count}

        def send_action(self, action):
            print(time.monotonic(), self.count, action["a.pos"], file=self.file, flush=True)
            return action


    run(Node(), Arm(), jpeg=0)
"""
POLICY = """
    import os
    import sys
    from pathlib import Path

    import numpy as np
    from dora import Node
    from lerobot_robot_dora.policy_node import options, run


    class Policy:
        cameras = ()
        state_size = action_size = 1

        def predict(self, state, images, task):
            return state + np.arange(60, dtype=np.float32)[:, None]

        def reset(self):
            pass


    node = Node()
    Path("policy.pid").write_text(str(os.getpid()))
    run(node, Policy(), options(["--policy", "next", "--fps", "30"]))
"""
SCRIPT = """
    import time

    import pyarrow as pa
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("action", pa.array([time.monotonic()]), {"names": ["a.pos"]})
"""
ROBOT, GPU = {"machine": "robot"}, {"machine": "gpu"}
TICK = "dora/timer/hz/30"


def _arm(source: str) -> dict[str, Any]:
    return {
        "id": "arm",
        "path": "arm.py",
        "deploy": ROBOT,
        "inputs": {"tick": TICK, "action": {"source": source, "queue_size": 1}},
        "outputs": ["state"],
    }


FLOW = {
    "nodes": [
        _arm("steps/action"),
        {
            "id": "steps",
            "path": "dora-lerobot-steps",
            "deploy": ROBOT,
            "inputs": {"tick": TICK, "chunk": {"source": "policy/chunk", "queue_size": 1}},
            "outputs": ["action"],
        },
        {
            "id": "policy",
            "path": "policy.py",
            "restart_policy": "always",
            "deploy": GPU,
            "inputs": {"state": {"source": "arm/state", "queue_size": 1}},
            "outputs": ["chunk"],
        },
    ]
}
FLOW_OF_SCRIPT = {
    "nodes": [
        _arm("script/action"),
        {
            "id": "script",
            "path": "script.py",
            "deploy": GPU,
            "inputs": {"tick": TICK},
            "outputs": ["action"],
        },
    ]
}
HOLDS = 0.2 + 0.2
"""Seconds without a new chunk after which no step is sent, and some for a slow machine."""
TOO_OLD = 9
"""Observations, 0.3 s; a link that heals delivers older ones."""


@pytest.fixture
def wire() -> Iterator[Cable]:
    require_networks()
    with cable("robot", "gpu") as connected:
        yield connected


class Actions:
    """The actions that the arm has executed."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> list[tuple[float, float, float]]:
        """Return times, counts of observations, and positions."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [(float(a), float(b), float(c)) for a, b, c in map(str.split, lines)]

    def wait_for_more(self) -> None:
        before = len(self.read())
        wait_until(lambda: len(self.read()) >= before + 15, what="the arm to go on")

    def between(self, begin: float, end: float) -> list[float]:
        return [at for at, _, _ in self.read() if begin < at < end]


def test_the_arm_holds_and_goes_on(workspace: Workspace, wire: Cable) -> None:
    """The policy is cut off, stopped, killed and replaced."""
    workspace.node("arm", ARM)
    workspace.node("policy", POLICY)
    settings = ("--interface", "0.0.0.0")
    actions = Actions(workspace.path / "actions")
    with wire.at("robot"), real_fleet(workspace, "robot", settings=settings) as fleet:
        with wire.at("gpu"):
            fleet.start_daemon("gpu", "--coordinator-addr", wire.addresses["robot"])
        fleet.start(workspace.dataflow(FLOW))
        for seconds in (1.0, 10.0):
            actions.wait_for_more()
            _check_pause(actions, wire.cut, seconds, wire.heal)
        actions.wait_for_more()
        pid = _policy(workspace)
        _check_pause(
            actions, lambda: os.kill(pid, signal.SIGSTOP), 1.0, lambda: os.kill(pid, signal.SIGCONT)
        )
        actions.wait_for_more()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _policy(workspace) != pid, what="another process of the policy")
        actions.wait_for_more()
        fleet.dora("node", "restart", "policy")
        actions.wait_for_more()
        for machine in ("robot", "gpu"):
            with wire.at(machine):
                _check_ports(fleet)
        fleet.dora("stop")
    ages = [count - position for _, count, position in actions.read()]
    assert max(ages) <= TOO_OLD


def test_an_old_action_of_a_script_is_not_executed(workspace: Workspace, wire: Cable) -> None:
    """It is sent during a cut, and arrives afterwards."""
    workspace.node("arm", ARM)
    workspace.node("script", SCRIPT)
    actions = Actions(workspace.path / "actions")
    settings = ("--interface", "0.0.0.0")
    with wire.at("robot"), real_fleet(workspace, "robot", settings=settings) as fleet:
        with wire.at("gpu"):
            fleet.start_daemon("gpu", "--coordinator-addr", wire.addresses["robot"])
        uuid = fleet.start(workspace.dataflow(FLOW_OF_SCRIPT))
        for seconds in (1.0, 10.0):
            actions.wait_for_more()
            _check_pause(actions, wire.cut, seconds, wire.heal)
        assert "old when it arrives; the limit is 0.2 s" in fleet.dora("logs", uuid).stdout
        fleet.dora("stop")
    ages = [at - sent for at, _, sent in actions.read()]
    assert max(ages) <= HOLDS


def _check_pause(
    actions: Actions, begin: Callable[[], None], seconds: float, end: Callable[[], None]
) -> None:
    """Between `begin` and `end` the arm holds, and afterwards it goes on."""
    begin()
    began = time.monotonic()
    let_last(seconds)
    ended = time.monotonic()
    end()
    actions.wait_for_more()
    assert actions.between(began + HOLDS, ended) == []


def _policy(workspace: Workspace) -> int:
    return int((workspace.path / "policy.pid").read_text())


def _check_ports(fleet: RealFleet) -> None:
    """No port is open but those of the coordinator and the links."""
    shown = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True).stdout
    ports = {int(line.split()[3].rpartition(":")[2]) for line in shown.splitlines()}
    assert {port for port in ports if not 7450 <= port < 7550} <= {fleet.port}
