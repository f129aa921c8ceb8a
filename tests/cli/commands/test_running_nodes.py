"""Commands that runners answer: top, node, param, topic; all tests share one fleet."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.dora import DORA, run_dora, running_dora
from support.fleets.coordinator import free_port
from support.fleets.daemons import RealFleet, counting, pids, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

ROBOT: dict[str, object] = {"machine": "robot"}


def is_connected(pid: int) -> bool:
    """Return whether a process has an open connection."""
    found = psutil.Process(pid).net_connections()
    return any(one.status == psutil.CONN_ESTABLISHED for one in found)


def is_pausing(pid: int) -> bool:
    """Return whether a process with a connection sleeps for a time."""
    return is_connected(pid) and "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def fleet(home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    assert home.is_dir()
    with real_fleet(shared_workspace, "robot") as made:
        yield made


def running(fleet: RealFleet) -> str:
    """A dataflow named `a` on the robot whose nodes the daemon has reported as running."""
    listed = fleet.listed()
    if listed and listed[-1].status == "Running":
        uuid = listed[-1].uuid
    else:
        flow = counting(fleet.workspace, counter=ROBOT, collector=ROBOT)
        uuid = fleet.start(flow, "--name", "a")
    wait_until(
        lambda: fleet.dora("top", "--once", "--show", "nodes").stdout.count('"Running"') == 2,
        what="both nodes to be shown as running",
    )
    return uuid


def test_top_shows_each_node_once(fleet: RealFleet) -> None:
    uuid = running(fleet)
    *shown, edge = rows(fleet.dora("top", "--once").stdout)
    assert {row["node"] for row in shown} == {"counter", "collector"}
    assert all(row["machine"] == "robot" and row["dataflow"] == uuid for row in shown)
    assert {row["pid"] for row in shown} == set(pids(fleet.workspace)[-2:])
    assert (edge["source"], edge["target"]) == ("counter/count", "collector/count")
    assert isinstance(edge["messages_per_second"], float)
    assert isinstance(edge["latency_p99"], float)
    table = fleet.dora("inspect", "top", "--once", "--format", "table").stdout.splitlines()
    assert table[0].split()[:4] == ["NODE", "STATUS", "DATAFLOW", "MACHINE"]
    assert table[4].split()[:4] == ["EDGE", "DATAFLOW", "MACHINE", "MSG/S"]
    for wrong in (("--node", "nosuch"), ("--dataflow", "nosuch")):
        assert '"nosuch"' in fleet.dora("top", "--once", *wrong, code=1).stderr
    refused = fleet.dora("top", code=1).stderr
    assert "needs a terminal" in refused
    assert "--once" in refused
    absent = run_dora("top", "--once", "--coordinator-port", str(free_port())).exited(1)
    assert "cannot connect to the coordinator" in absent.stderr


def test_top_that_is_interrupted_while_it_measures(fleet: RealFleet) -> None:
    running(fleet)
    with running_dora("top", "--once", "--coordinator-port", str(fleet.port)) as process:
        wait_until(lambda: is_pausing(process.pid), what="the pause between two snapshots")
        process.interrupt()
        assert (process.wait().code, process.stdout) == (130, "")


@pytest.mark.parametrize("interrupt", [False, True], ids=["q", "Ctrl-C"])
def test_top_sorts_by_keys_and_restores_the_terminal(fleet: RealFleet, interrupt: bool) -> None:
    running(fleet)
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [str(DORA), "top", "--coordinator-port", str(fleet.port)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "40"},
            start_new_session=True,
        )
        seen = ""

        def shows(text: str) -> bool:
            nonlocal seen
            while select.select([ours], [], [], 0)[0]:
                seen += os.read(ours, 65536).decode()
            return text in seen

        wait_until(lambda: shows("2 nodes by name") and shows("counter"), what="the table")
        os.write(ours, b"m")
        wait_until(lambda: shows("2 nodes by memory"), what="another order")
        if interrupt:
            process.send_signal(signal.SIGINT)
        else:
            os.write(ours, b"q")
        assert process.wait(10) == 0
        assert shows("\x1b[?1049l")
    finally:
        os.close(ours)
        os.close(theirs)


def test_refusals_of_the_runner_are_shown(fleet: RealFleet) -> None:
    running(fleet)
    unknown = fleet.dora("node", "restart", "missing", code=1).stderr
    assert 'has no node "missing"; its nodes are: collector, counter' in unknown
    assert "no parameter" in fleet.dora("param", "delete", "counter", "x", code=1).stderr
    key = "k" * 300
    assert "1 to 256 bytes" in fleet.dora("param", "set", "counter", key, "1", code=1).stderr


def test_parameters_are_set_read_and_deleted(fleet: RealFleet) -> None:
    running(fleet)
    fleet.dora("param", "set", "collector", "speed", '{"max": 1.5}')
    assert fleet.dora("param", "get", "collector", "speed").stdout == '{"max": 1.5}\n'
    before = len(pids(fleet.workspace))
    os.kill(fleet.runner_pid(), signal.SIGKILL)  # recovery also restores parameters
    wait_until(lambda: len(pids(fleet.workspace)) == before + 2, what="the nodes to be started")
    fleet.wait_for_status("Running")
    listed = rows(fleet.dora("param", "list", "collector", "-f", "json").stdout)
    assert listed == [{"key": "speed", "value": {"max": 1.5}}]
    fleet.dora("param", "delete", "collector", "speed")
    missing = fleet.dora("param", "get", "collector", "speed", code=1).stderr
    assert "param not found" in missing
    wait_until(lambda: "event PARAM_DELETED" in fleet.dora("logs", "a").stdout)
    assert "event PARAM_UPDATE" in fleet.dora("logs", "a").stdout
    assert (
        "is not valid JSON" in fleet.dora("param", "set", "collector", "a", "fast", code=2).stderr
    )


def test_topics_are_listed_and_measured(fleet: RealFleet) -> None:
    uuid = running(fleet)
    listed = rows(fleet.dora("topic", "list", "-f", "json").stdout)
    assert listed == [{"node": "counter", "name": "count", "subscribers": ["collector/count"]}]
    fleet.wait_for_messages(uuid)
    info = fleet.dora("topic", "info", "counter/count", "--duration", "500ms").stdout
    assert "Publisher: counter on robot" in info
    assert "collector/count" in info
    fleet.dora("topic", "pub", "counter/count", "[9, 9, 0, 0, 0, 0, 0, 0]")
    wait_until(lambda: 9 * 257 in fleet.messages(uuid), what="the message that was published")
    unknown = fleet.dora("topic", "info", "counter/cnt", code=1).stderr
    assert "its outputs: counter/count" in unknown


def test_a_node_is_stopped_and_restarted_alone(fleet: RealFleet) -> None:
    uuid = running(fleet)
    before = len(pids(fleet.workspace))
    fleet.wait_for_messages(uuid)
    info = fleet.dora("node", "info", "counter").stdout
    assert "Output: count -> collector/count" in info
    assert "Daemon: robot" in info
    restarted = fleet.dora("node", "restart", "counter")
    assert restarted.stdout == 'node "counter" restarted\n'
    wait_until(lambda: len(pids(fleet.workspace)) == before + 1, what="the new process")
    assert "event NODE_RESTARTED" in fleet.dora("logs", "a").stdout
    fleet.wait_for_messages(uuid)
    fleet.dora("node", "stop", "counter", "-d", "a", "--grace", "2s")
    assert fleet.wait_for_status("Finished").uuid == uuid  # its reader had no other input
    unknown = fleet.dora("node", "stop", "missing", code=1).stderr
    assert "No dataflows are running." in unknown


def test_a_disconnected_daemon_is_reported(fleet: RealFleet) -> None:
    running(fleet)
    fleet.daemons["robot"].send_signal(signal.SIGKILL)
    fleet.wait_for_status("Degraded")
    away = fleet.dora("param", "list", "counter", code=1).stderr
    assert 'no connection to daemon "robot"' in away
