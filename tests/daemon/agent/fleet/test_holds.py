"""Nodes that hold updates: changes wait for them, or are forced."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.dora import running_dora
from support.fleets.daemons import RealFleet, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.protocol.control import ListNodes

pytestmark = pytest.mark.integration

ARM = """
    from pathlib import Path
    from dora import Node

    node = Node()
    with node.hold_updates("arm is moving"):
        for event in node:
            if Path("done").exists():
                break
    for event in node:
        pass
"""
OTHER = """
    from dora import Node

    for event in Node():
        pass
"""


def arm(fleet: RealFleet) -> tuple[int | None, str | None]:
    """Return process id and hold of the node."""
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        rows = client.request(ListNodes()).nodes
    return next((row.pid, row.held) for row in rows if row.node == "arm")


def test_a_replacement_waits_for_the_holder_and_can_be_forced(
    home: Path, workspace: Workspace
) -> None:
    assert home.is_dir()
    workspace.node("arm", ARM)
    workspace.node("other", OTHER)
    node = {"id": "arm", "path": "arm.py", "inputs": {"tick": "dora/timer/millis/100"}}
    other = {"id": "other", "path": "other.py", "inputs": {"tick": "dora/timer/millis/100"}}
    flow = workspace.dataflow({"nodes": [node, other]})
    workspace.file("other.yml", "id: arm\npath: other.py\ninputs: {tick: dora/timer/millis/100}\n")
    with real_fleet(workspace, None, settings=("--set", "heartbeat_interval=0.5s")) as fleet:
        fleet.start(flow)
        wait_until(lambda: arm(fleet)[1] == "arm is moving", what="the node to hold updates")
        before = arm(fleet)[0]
        words = ("node", "replace", "arm", "--from-yaml", "other.yml")
        port = ("--coordinator-port", str(fleet.port))
        with running_dora(*words, *port, cwd=workspace.path) as waiting:
            waiting.wait_for('node "arm" holds updates: arm is moving')
            assert arm(fleet)[0] == before
            workspace.file("done", "")
            assert waiting.wait().code == 0
        wait_until(lambda: arm(fleet)[0] not in (None, before), what="the other process")
        wait_until(lambda: arm(fleet)[1] is None, what="no hold")
        fleet.dora("node", "hold", "arm", "by me")
        wait_until(lambda: arm(fleet)[1] == "by me", what="the operator's hold")
        fleet.dora(*words, "--force")
        with running_dora("node", "restart", "arm", *port, cwd=workspace.path) as waiting:
            waiting.wait_for('node "arm" holds updates: by me')
            fleet.dora("node", "release", "arm")
            assert waiting.wait().code == 0
        fleet.dora(*words)
        fleet.dora("node", "hold", "arm", "by me")
        wait_until(lambda: arm(fleet)[1] == "by me", what="the hold again")
        fleet.dora("node", "stop", "arm", "--force")
