"""A script of LeRobot on one machine, the arm on another one; the cable between them is cut."""

from __future__ import annotations

import json

import pytest
from support.fleets.cables import cable, require_networks
from support.fleets.daemons import real_fleet
from support.waiting import let_last, wait_until
from support.workspace import Workspace
from with_lerobot.test_scripts import DEVICES, ENVIRONMENT, flow

CUT = 5.0
"""Seconds; the node `check` reports pauses of more than 3 s."""


@pytest.mark.timeout(300)
def test_a_script_goes_on_after_a_cut(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_networks()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    words = ("lerobot-teleoperate", *DEVICES, "--fps=30")
    content = json.loads(flow(workspace, " ".join(words)).read_text())
    for node in content["nodes"]:
        node["deploy"] = {"machine": "gpu" if node["id"] == "script" else "robot"}
    settings = ("--interface", "0.0.0.0")
    with (
        cable("robot", "gpu") as wire,
        wire.at("robot"),
        real_fleet(workspace, "robot", settings=settings) as fleet,
    ):
        with wire.at("gpu"):
            fleet.start_daemon("gpu", "--coordinator-addr", wire.addresses["robot"])
        uuid = fleet.start(workspace.dataflow(content))

        def wait_for(text: str) -> None:
            def log() -> str:
                return fleet.dora("logs", uuid, "--node", "check").stdout

            wait_until(lambda: text in log(), what=log)

        wait_for("30 actions")
        wire.cut()
        let_last(CUT)
        wire.heal()
        wait_for("went on after")
        fleet.dora("stop")
