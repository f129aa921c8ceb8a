"""Restarts and recoveries are shown: by `logs`, `start --attach`, `list` and the daemon's log."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from support.dora import running_dora
from support.fleets.daemons import RealFleet, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

MORTAL = """
    import os
    from pathlib import Path
    from dora import Node

    node = Node()
    with Path("pids").open("a") as file:
        print(os.getpid(), file=file)
    for event in node:
        if event["type"] == "INPUT" and Path("exit").exists():
            Path("exit").unlink()
            raise SystemExit(3)
"""


def mortal(workspace: Workspace) -> Path:
    """A node that ends with code 3 when a file `exit` appears, and is restarted."""
    workspace.node("mortal", MORTAL)
    node = {
        "id": "mortal",
        "path": "mortal.py",
        "restart_policy": "on-failure",
        "restart_delay": 0.1,
        "min_log_level": "error",
        "inputs": {"tick": "dora/timer/millis/20"},
    }
    return workspace.dataflow({"nodes": [node]})


def listed(fleet: RealFleet) -> dict[str, object]:
    found: dict[str, object] = json.loads(fleet.dora("list", "-f", "json").stdout)
    return found


def test_restarts_are_lines_everywhere_and_in_the_list(workspace: Workspace) -> None:
    flow = mortal(workspace)
    with real_fleet(workspace, None) as fleet:
        words = ("start", flow, "--name", "a", "--attach")
        port = ("--coordinator-port", str(fleet.port))
        with running_dora(*words, *port, cwd=workspace.path) as attached:
            attached.wait_for("dataflow started")
            wait_until(lambda: (workspace.path / "pids").exists(), what="the node")
            (workspace.path / "exit").touch()
            first = "exited with code 3; restart 1 in 0.1 s"
            attached.wait_for(first)
            attached.wait_for("runs again after restart 1 (process")
            os.kill(int((workspace.path / "pids").read_text().split()[-1]), signal.SIGKILL)
            second = "signal SIGKILL (not sent by dora"
            attached.wait_for(second)
            attached.wait_for("runs again after restart 2 (process")
            logs = fleet.dora("logs", "a", "mortal").stdout
            for text in (first, second, "runs again after restart 2"):
                assert text in logs
                fleet.daemons["default"].wait_for(text)
            fleet.daemons["default"].wait_for(f'dataflow a: node "mortal" {first}')
            wait_until(lambda: listed(fleet).get("restarts") == 2, what="the restarts in the list")
            last = listed(fleet)["last_restart"]
            assert isinstance(last, dict)
            assert (last["node"], last["cause"]) == ("mortal", "SIGKILL, not sent by dora")
            shown = fleet.dora("list").stdout
            assert re.search(
                r"restarted 2 times, last: SIGKILL, not sent by dora, \d+ s ago", shown
            )
            attached.interrupt()
            attached.wait()


def test_a_recovery_is_a_line_everywhere_and_in_the_list(workspace: Workspace) -> None:
    flow = mortal(workspace)
    with real_fleet(workspace, None) as fleet:
        uuid = fleet.start(flow, "--name", "a")
        os.kill(fleet.runner_pid(), signal.SIGKILL)
        line = "started again (recovery): its runner ended unexpectedly"
        wait_until(lambda: line in fleet.dora("logs", uuid).stdout, what="the line")
        fleet.daemons["default"].wait_for(
            "dataflow a: starting mortal again (recovery): its runner"
        )
        fleet.wait_for_status("Running")
        assert "recovered once, last: its runner ended unexpectedly" in fleet.dora("list").stdout
        assert listed(fleet)["recoveries"] == 1
        fleet.dora("stop")
