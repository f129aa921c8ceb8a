"""`dora why` with a coordinator and daemons: crash, restarts of both, a full disk, Ctrl-C."""

from __future__ import annotations

import json
import signal
import tarfile
from typing import Any

import psutil
import pytest
from support.dora import running_dora
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.access_token import Token

pytestmark = pytest.mark.integration

ROBOT: dict[str, object] = {"machine": "robot"}
PASSWORD = "hunter2-of-the-robot"
CRASHING = """
    import os, sys
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            print("no frame with", os.environ["CAMERA_PASSWORD"], file=sys.stderr)
            sys.exit(3)
"""


def explained(fleet: RealFleet, *words: str) -> dict[str, Any]:
    """Return the answer without the time of the cause, as clock offsets vary a little."""
    answer: dict[str, Any] = json.loads(fleet.dora("why", *words, "--format", "json").stdout)
    if answer["cause"] is not None:
        assert answer["cause"].pop("at") <= answer["now"]
    return answer


def crashing(workspace: Workspace) -> dict[str, object]:
    workspace.node("camera", CRASHING)
    workspace.node("plot", "from dora import Node\nfor event in Node():\n    pass\n")
    return {
        "nodes": [
            {
                "id": "camera",
                "path": "camera.py",
                "env": {"CAMERA_PASSWORD": PASSWORD},
                "inputs": {"tick": "dora/timer/millis/20"},
                "outputs": ["image"],
                "deploy": ROBOT,
            },
            {
                "id": "plot",
                "path": "plot.py",
                "inputs": {"image": "camera/image", "tick": "dora/timer/secs/1"},
                "deploy": ROBOT,
            },
        ]
    }


def test_a_crash_is_explained_after_restarts_of_coordinator_and_daemon(
    workspace: Workspace,
) -> None:
    with real_fleet(workspace, "robot") as fleet:
        uuid = fleet.start(workspace.dataflow(crashing(workspace)), "--name", "demo")
        wait_until(lambda: explained(fleet)["cause"], what="the failure")
        before = explained(fleet, "demo")
        assert (before["uuid"], before["status"]) == (uuid, "Running")
        assert before["summary"] == 'node "camera" on machine "robot" exited with code 3'
        assert before["cause"]["stderr"] == [f"no frame with {PASSWORD}"]
        # the coordinator may note after it that the dataflow runs
        assert "failed: exited with code 3" in [one["text"] for one in before["timeline"]][-2:]

        fleet.coordinator.process.kill()
        fleet.daemons["robot"].kill()
        fleet.restart_coordinator()
        fleet.start_daemon("robot")
        wait_until(lambda: explained(fleet)["status"] == "Running", what="the recovery")
        after = explained(fleet)
        assert after["cause"] == before["cause"]
        assert after["timeline"][:-1] != before["timeline"]

        refused = fleet.dora("why", "other", code=1)
        assert refused.stderr == '[ERROR]\nno dataflow with name "other"\n'
        fleet.dora("why", "--archive", "report.tar.gz")
        with CoordinatorClient(fleet.coordinator.endpoint) as client:
            token = client.endpoint.token
        assert token is not None
        with tarfile.open(workspace.path / "report.tar.gz") as archive:
            names = [member.name for member in archive.getmembers()]
            read = [archive.extractfile(name) for name in names]
            text = "".join(file.read().decode() for file in read if file is not None)
        assert "dora-report/logs_robot.jsonl" in names
        assert "no frame with <redacted>" in text
        assert PASSWORD not in text
        assert Token.parse(token).secret not in text
        fleet.dora("stop", "demo", code=1)
        assert explained(fleet, uuid)["cause"] == before["cause"]


def test_a_full_disk_and_an_interrupt(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot") as fleet:
        uuid = fleet.start(counting(workspace, counter=ROBOT, collector=ROBOT))
        fleet.wait_for_messages(uuid)
        log = workspace.path / "out" / uuid / "log_collector.jsonl"
        link = workspace.path / "full"
        link.symlink_to("/dev/full")
        link.replace(log)  # at once: the runner creates a missing file
        wait_until(lambda: explained(fleet)["cause"], what="the full disk")
        cause = explained(fleet)["cause"]
        assert cause["text"].startswith('the disk of machine "robot" is full: cannot write ')
        assert cause["machine"] == "robot"

        fleet.coordinator.process.send_signal(signal.SIGSTOP)
        try:
            port = str(fleet.port)
            with running_dora("why", "--coordinator-port", port, cwd=workspace.path) as waiting:
                process = psutil.Process(waiting.pid)
                wait_until(process.net_connections, what="the connection")
                waiting.send_signal(signal.SIGINT)
                assert waiting.wait().code == 130
        finally:
            fleet.coordinator.process.send_signal(signal.SIGCONT)
