"""A fleet that is described by a file: real processes, one coordinator, two machines."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fleets.daemons import RealFleet, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cluster.commands.fleet import operator
from dora_config.protocol.control import ListNodes
from dora_config.protocol.fleet import (
    ApplyFleet,
    Fleet,
    FleetHistory,
    FleetReport,
    GetFleet,
    GetFleetHistory,
)

pytestmark = pytest.mark.integration

SENDER = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("out", b"x")
"""
READER = """
    from dora import Node

    for event in Node():
        pass
"""
COUNTING = """
    from dora import Node

    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "INPUT":
            node.send_output("out", number.to_bytes(4, "little"))
"""
COUNTER = """
    import os
    from pathlib import Path
    from dora import Node

    counts = Path(os.environ["COUNTS"], str(os.getpid()))
    expected = None
    for event in Node():
        if event["id"] == "count":
            number = int.from_bytes(bytes(event["value"].to_pylist()), "little")
            with counts.open("a") as file:
                print(number if expected in (None, number) else "gap", file=file)
            expected = number + 1
"""
DYING = """
    import time
    from dora import Node

    begun = time.monotonic()
    for _ in Node():
        if time.monotonic() - begun > 5:
            raise SystemExit(3)
"""
FLOW: dict[str, Any] = {
    "deploy": {"distribute": "http"},
    "nodes": [
        {
            "id": "camera",
            "path": "camera/main.py",
            "inputs": {"tick": "dora/timer/millis/100"},
            "outputs": ["out"],
        },
        {
            "id": "worker",
            "path": "worker/main.py",
            "inputs": {"in": "camera/out", "tick": "dora/timer/millis/500"},
            "outputs": ["out"],
        },
        {"id": "plot", "path": "plot/main.py", "inputs": {"in": "worker/out"}},
    ],
}
WAVES = """
    dataflows:
      drive: {file: flow.yml, machines: [rover-1, rover-2]}
    rollout: {first: [rover-1], then: 50%, healthy: 1s, deadline: 60s}
"""


@pytest.fixture
def fleet(home: Path, workspace: Workspace) -> Iterator[RealFleet]:
    assert home.is_dir()
    settings = ("--set", "heartbeat_interval=0.5s")
    with real_fleet(workspace, "rover-1", "rover-2", settings=settings) as made:
        workspace.file("camera/main.py", SENDER)
        workspace.file("worker/main.py", READER)
        workspace.file("plot/main.py", READER)
        workspace.dataflow(FLOW, "flow.yml")
        workspace.file("fleet.yml", WAVES)
        yield made


def processes(fleet: RealFleet) -> dict[tuple[str, str], int | None]:
    """Return the process id of each running node, by dataflow and node."""
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        rows = client.request(ListNodes()).nodes
    return {(row.dataflow_name or "", row.node): row.pid for row in rows}


def report(fleet: RealFleet) -> FleetReport:
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        return client.request(GetFleet())


def history(fleet: RealFleet) -> FleetHistory:
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        return client.request(GetFleetHistory())


def known_processes(fleet: RealFleet) -> dict[tuple[str, str], int | None]:
    """Wait until all process ids have been reported."""

    def complete() -> bool:
        found = processes(fleet)
        return len(found) == 6 and all(found.values())

    wait_until(complete, what=lambda: f"six nodes with process ids: {processes(fleet)}")
    return processes(fleet)


def test_only_the_replaced_node_gets_another_process(fleet: RealFleet) -> None:
    before = fleet.dora("cluster", "diff", "fleet.yml", code=2)
    assert "start drive@rover-1" in before.stdout
    fleet.dora("cluster", "apply", "fleet.yml", "--yes")
    assert fleet.dora("cluster", "diff", "fleet.yml").stdout == "no changes\n"
    first = known_processes(fleet)
    fleet.workspace.file("worker/main.py", READER + "    # another version")
    shown = fleet.dora("cluster", "diff", "fleet.yml", code=2).stdout
    assert "change drive@rover-2\n  worker: replaced (code)\n" in shown
    done = fleet.dora("cluster", "apply", "fleet.yml", "--yes")
    assert "generation 2: done" in done.stdout
    second = known_processes(fleet)
    assert {key for key in first if first[key] != second[key]} == {
        ("drive@rover-1", "worker"),
        ("drive@rover-2", "worker"),
    }
    rolled = fleet.dora("cluster", "rollback")
    assert "generation 3: done" in rolled.stdout
    third = known_processes(fleet)
    assert {key for key in second if second[key] != third[key]} == {
        ("drive@rover-1", "worker"),
        ("drive@rover-2", "worker"),
    }
    assert [one.action for one in history(fleet).generations] == ["apply", "apply", "rollback"]


def test_a_canary_that_dies_is_rolled_back_before_others_are_touched(fleet: RealFleet) -> None:
    """Its node dies after 5 s, while messages are counted on the other machine."""
    workspace, counts = fleet.workspace, fleet.workspace.path / "counts"
    counts.mkdir()
    workspace.file("camera/main.py", COUNTING)
    workspace.file("plot/main.py", COUNTER)
    counted = {"source": "camera/out", "queue_size": 1000, "queue_policy": "backpressure"}
    plot = {"id": "plot", "path": "plot/main.py", "inputs": {"count": counted}}
    workspace.dataflow({**FLOW, "nodes": [*FLOW["nodes"][:2], plot]}, "flow.yml")
    text = WAVES.replace("rover-2]", f"rover-2], env: {{COUNTS: {counts}}}")
    workspace.file("fleet.yml", text)
    fleet.dora("cluster", "apply", "fleet.yml", "--yes")
    first = known_processes(fleet)
    workspace.file("fleet.yml", text.replace("healthy: 1s", "healthy: 20s"))
    workspace.file("worker/main.py", DYING)
    failed = fleet.dora("cluster", "apply", "fleet.yml", "--yes", code=1)
    reason = 'generation 2 failed: drive@rover-1: node "worker" failed'
    assert reason in failed.stderr
    second = known_processes(fleet)
    untouched = {key for key in first if key[0] == "drive@rover-2"}
    assert {key: second[key] for key in untouched} == {key: first[key] for key in untouched}
    received = counts / str(first["drive@rover-2", "plot"])
    before = len(received.read_text().split())
    wait_until(lambda: len(received.read_text().split()) > before, what="more messages")
    assert "gap" not in received.read_text()
    entries = history(fleet).generations
    assert [(one.generation, one.action, one.by) for one in entries[1:]][1] == (
        3,
        "rollback",
        "roll-out of generation 2",
    )
    assert "rolled back by generation 3" in entries[1].outcome
    assert "drive@rover-1" in entries[1].outcome
    assert fleet.dora("cluster", "history").stdout.count("drive@rover-2") == 2
    # the file still describes what failed
    fleet.dora("cluster", "diff", "fleet.yml", code=2)


def test_a_killed_coordinator_continues_and_a_second_operator_is_refused(
    fleet: RealFleet,
) -> None:
    fleet.dora("cluster", "apply", "fleet.yml", "--yes", "--detach")
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        late = ApplyFleet(fleet=Fleet(), generation=0, by="second@laptop")
        with pytest.raises(RequestFailed) as refused:
            client.request(late)
    assert "second@laptop compared" in str(refused.value)
    assert operator() in str(refused.value)
    fleet.coordinator.process.send_signal(signal.SIGKILL)
    fleet.coordinator.process.wait()
    fleet.restart_coordinator()
    wait_until(lambda: report(fleet).settled, what=lambda: f"the end: {report(fleet)}")
    assert report(fleet).outcome == "done"
    assert all(one.state == "current" for one in report(fleet).copies)
    assert len(known_processes(fleet)) == 6


def test_a_machine_that_was_off_follows_when_it_returns(fleet: RealFleet) -> None:
    daemon = fleet.daemons["rover-2"]
    daemon.interrupt()
    daemon.wait()
    done = fleet.dora("cluster", "apply", "fleet.yml", "--yes")
    assert "off, follow when they return: rover-2" in done.stdout
    fleet.start_daemon("rover-2")
    assert len(known_processes(fleet)) == 6
    fleet.workspace.file("fleet.yml", "dataflows: {}")
    assert "stop drive@rover-1" in fleet.dora("cluster", "apply", "fleet.yml", "--yes").stdout
    assert [one.status for one in fleet.listed()] == ["Finished", "Finished"]


def test_an_apply_waits_for_a_node_that_holds_updates(fleet: RealFleet) -> None:
    fleet.workspace.file("fleet.yml", "dataflows: {drive: {file: flow.yml, machines: [rover-1]}}")
    fleet.dora("cluster", "apply", "fleet.yml", "--yes")
    fleet.dora("node", "hold", "worker", "arm is moving", "--dataflow", "drive@rover-1")

    def held() -> str | None:
        with CoordinatorClient(fleet.coordinator.endpoint) as client:
            rows = client.request(ListNodes()).nodes
        return next(row.held for row in rows if row.node == "worker")

    wait_until(held, what="the hold to be reported")
    fleet.workspace.file("worker/main.py", READER + "    # another version")
    fleet.dora("cluster", "apply", "fleet.yml", "--yes", "--detach")
    expected = 'node "worker" holds updates: arm is moving'
    wait_until(lambda: report(fleet).copies[0].detail == expected, what="the reason")
    assert not report(fleet).settled
    fleet.dora("node", "release", "worker", "--dataflow", "drive@rover-1")
    wait_until(lambda: report(fleet).settled, what=lambda: f"the end: {report(fleet)}")
    assert report(fleet).outcome == "done"
