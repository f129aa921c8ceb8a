"""`dora replay --check` with a recording of two machines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.dora import run_dora
from support.fleets.daemons import real_fleet
from support.fleets.linked_fleet import ROBOT, STATION
from support.workspace import Workspace

from dora_recordings.reading import Recording

pytestmark = pytest.mark.integration

LIDAR = """
    import random, time
    import pyarrow as pa
    from dora import Node

    node = Node()
    for number in range(40):
        node.next()
        node.send_output("scan", pa.array([random.random()]), {"stamp": time.time()})
"""
PLANNER = """
    # What it sends depends on the order of its events.
    import pyarrow as pa
    from dora import Node

    node = Node()
    speed = 0.0
    for event in node:
        if event["type"] == "INPUT_CLOSED":
            break
        if event["type"] == "INPUT":
            speed = 0.9 * speed + (0.5 if event["id"] == "tick" else event["value"][0].as_py())
            node.send_output("cmd", pa.array([speed]), event["metadata"])
"""
LATE_NS = 2 * 3600 * 10**9
LATE = f"""
    import time

    def shift(real, by):
        return lambda: real() - by

    time.time_ns = shift(time.time_ns, {LATE_NS})
    time.time = shift(time.time, {LATE_NS} / 1e9)
"""


def dataflow(workspace: Workspace) -> Path:
    workspace.node("lidar", LIDAR)
    workspace.node("planner", PLANNER)
    tick = {"tick": "dora/timer/millis/20"}
    scan = {"source": "lidar/scan", "queue_size": 50}
    lidar = {"id": "lidar", "path": "lidar.py", "inputs": tick, "outputs": ["scan"]}
    planner = {"id": "planner", "path": "planner.py", "outputs": ["cmd"]}
    return workspace.dataflow(
        {
            "nodes": [
                {**lidar, "deploy": ROBOT},
                {**planner, "inputs": {"scan": scan, **tick}, "deploy": STATION},
            ]
        }
    )


def test_machines_whose_clocks_are_hours_apart(workspace: Workspace) -> None:
    """The events of a node are noted by the clocks of their machines, messages are corrected."""
    file = workspace.path / "drive.mcap"
    workspace.file("late/sitecustomize.py", LATE)
    late = {"PYTHONPATH": str(workspace.path / "late")}
    with real_fleet(workspace, "station") as fleet:
        fleet.start_daemon("robot", env=late)
        fleet.dora("record", dataflow(workspace), "--cluster", "-o", file, timeout=60)
    clocks = {one["machine"]: int(one["first_offset_ns"]) for one in Recording(file).facts.clocks}
    assert clocks["robot"] - clocks["station"] == pytest.approx(-LATE_NS, abs=10**9)

    equal = run_dora("replay", file, "--check", timeout=60).succeeded()
    assert re.fullmatch(r"planner/cmd: \d+ messages as recorded\n", equal.stdout)

    planner = workspace.path / "planner.py"
    planner.write_text(planner.read_text().replace("0.9 * speed", "0.9 * speed + 1e-3"))
    found = run_dora("replay", file, "--check", timeout=60).exited(1)
    assert re.search(r"planner/cmd: message 1 at \d\.\d+ s differs in value\[0\]", found.stdout)
    times = [one.log_time for one in Recording(file).messages(["planner/cmd"])]
    (again,) = Recording(workspace.path / "drive-check.mcap").messages(["planner/cmd"])
    assert again.log_time == pytest.approx(times[0], abs=10**9)
    assert again.publish_time == pytest.approx(times[0], abs=10**9)
