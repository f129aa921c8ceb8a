"""The fixture `dora_cluster`: several machines in one process."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dora_node_api.operators import DoraStatus
from dora_testing import FlowError, from_function
from dora_testing.cluster.cluster import InProcessCluster

DRIVE = """
nodes:
  - id: lidar
    path: lidar.py
    deploy: {machine: robot}
    outputs: [scan]
  - id: planner
    path: planner.py
    deploy: {machine: robot}
    restart_policy: on-failure
    inputs: {scan: lidar/scan}
    outputs: [state]
  - id: screen
    path: screen.py
    deploy: {machine: base}
    inputs: {state: planner/state}
"""


def planner(event: Any, send_output: Any) -> None:
    if event["type"] == "INPUT":
        send_output("state", event["value"])


NODES: dict[str, Any] = {"lidar": from_function(lambda t: [t], every=0.5), "planner": planner}


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    (tmp_path / "drive.yml").write_text(DRIVE)
    return tmp_path / "drive.yml"


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster(["base", "robot"])


def test_messages_cross_machines(cluster: InProcessCluster, drive: Path) -> None:
    flow = cluster.start(drive, NODES)
    assert flow.status == "Running"
    cluster.pass_time("10s")
    assert len(flow.received("screen/state")) >= 20
    assert flow.lost("screen/state") == 0
    cluster.stop("drive")
    assert flow.status == "Finished"


def test_a_robot_that_is_cut_off_runs_on(cluster: InProcessCluster, drive: Path) -> None:
    flow = cluster.start(drive, NODES)
    cluster.cut("base", "robot")
    cluster.pass_time("3m")
    assert flow.status == "Degraded"
    assert flow.runs("planner")
    assert 'machine "robot"' in flow.why().summary
    before = len(flow.received("screen/state"))
    assert len(flow.sent("planner/state")) > 300
    cluster.heal()
    assert flow.status == "Running"
    assert len(flow.received("screen/state")) > before + 300
    assert flow.lost("screen/state") > 100  # `drop_oldest` keeps the newest
    assert flow.restarts("planner") == 0


def test_a_node_that_fails_is_restarted(
    cluster: InProcessCluster, drive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails_once(event: Any, send_output: Any, failed: list[int] = []) -> None:  # noqa: B006
        if event["type"] == "INPUT" and not failed:
            failed.append(1)
            raise ValueError("the scan is empty")
        planner(event, send_output)

    flow = cluster.start(drive, {**NODES, "planner": fails_once})
    cluster.pass_time(30)
    assert flow.restarts("planner") == 1
    assert any("exited with code 1" in one.text for one in flow.why().timeline)
    assert "ValueError: the scan is empty" in caplog.text
    flow.kill("planner")
    cluster.pass_time(30)
    assert flow.restarts("planner") == 2
    assert flow.status == "Running"


def test_a_machine_that_loses_power_starts_its_nodes_again(
    cluster: InProcessCluster, drive: Path
) -> None:
    flow = cluster.start(drive, NODES)
    cluster.reboot("robot", back_after="1m")
    assert not flow.runs("planner")
    cluster.pass_time("2m")
    assert flow.runs("planner")
    assert flow.status == "Running"
    assert "robot" in flow.why().summary


def test_killed_daemons_and_coordinators_adopt_nodes(
    cluster: InProcessCluster, drive: Path
) -> None:
    flow = cluster.start(drive, NODES)
    cluster.kill("robot")
    cluster.kill_coordinator()
    with pytest.raises(FlowError, match="the coordinator does not run"):
        cluster.stop("drive")
    cluster.pass_time("2m")
    assert flow.status == "Running"
    assert flow.restarts("planner") == 0
    times = flow.sent("lidar/scan").times
    assert max(b - a for a, b in pairwise(times)) == pytest.approx(0.5)


def test_a_slow_network_delays_messages(cluster: InProcessCluster, drive: Path) -> None:
    flow = cluster.start(drive, NODES)
    cluster.slow("robot", latency="200ms")
    cluster.pass_time(5)
    delay = flow.received("screen/state").last.time - flow.sent("planner/state").times[-1]
    assert 0 <= delay <= 0.3 or delay < 0


def test_a_step_of_a_clock_changes_time_stamps_only(cluster: InProcessCluster, drive: Path) -> None:
    flow = cluster.start(drive, NODES)
    cluster.pass_time(5)
    before = flow.sent("planner/state").last.metadata["timestamp"]
    cluster.step_clock("robot", -86400)
    cluster.pass_time(60)
    after = flow.sent("planner/state").last.metadata["timestamp"]
    assert (before - after).total_seconds() == pytest.approx(86400 - 60, abs=1)
    assert flow.status == "Running"
    assert flow.lost("screen/state") == 0


def _history(drive: Path, seed: int) -> tuple[list[str], list[float]]:
    cluster = InProcessCluster(["base", "robot", "arm"], seed=seed)
    flow = cluster.start(drive, NODES)
    cluster.random_faults("5m")
    cluster.heal()
    assert flow.status == "Running"
    assert flow.runs("planner")
    return cluster.faults, flow.received("screen/state").times


def test_a_seed_repeats_a_run(drive: Path) -> None:
    assert _history(drive, 7) == _history(drive, 7)
    assert _history(drive, 8) != _history(drive, 7)


@pytest.mark.parametrize("seed", range(10))
def test_any_faults_heal(drive: Path, seed: int) -> None:
    _history(drive, seed)


def test_errors_name_what_exists(cluster: InProcessCluster, drive: Path) -> None:
    with pytest.raises(FlowError, match='node "eye" does not exist; the file has: lidar, planner'):
        cluster.start(drive, {"eye": planner})
    with pytest.raises(FlowError, match='machine "moon" does not exist; the cluster has: base'):
        cluster.cut("moon")
    with pytest.raises(FlowError, match='dataflow "x" does not exist; the cluster has: none'):
        cluster.dataflow("x")
    flow = cluster.start(drive, NODES)
    with pytest.raises(FlowError, match='input "screen/x" does not exist'):
        flow.received("screen/x")
    with pytest.raises(FlowError, match='no matching daemon for machine id "robot"'):
        InProcessCluster(["base"]).start(drive, NODES)
    with pytest.raises(FlowError, match="'3min' is not a duration"):
        cluster.pass_time("3min")


def test_a_failed_test_prints_its_seed(drive: Path) -> None:
    (drive.parent / "test_it.py").write_text(
        "def test_it(dora_cluster):\n"
        "    cluster = dora_cluster(['base', 'robot'], seed=12)\n"
        "    flow = cluster.start('drive.yml')\n"
        "    cluster.cut('robot')\n"
        "    cluster.pass_time('2m')\n"
        "    assert flow.status == 'Running'\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=drive.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "- dora_cluster -" in ran.stdout
    assert "seed 12 repeats this run\nat 0." in ran.stdout
    assert "s: cut('robot')" in ran.stdout
    assert "assert 'Degraded' == 'Running'" in ran.stdout


def test_a_reader_with_backpressure_loses_nothing(cluster: InProcessCluster, drive: Path) -> None:
    waits = "{source: planner/state, queue_policy: backpressure}"
    drive.write_text(DRIVE.replace("{state: planner/state}", f"{{state: {waits}}}"))
    flow = cluster.start(drive, NODES)
    cluster.cut("robot")
    cluster.pass_time("5m")
    assert len(flow.sent("planner/state")) < 100  # it waits
    cluster.heal()
    assert flow.lost("screen/state") == 0
    assert len(flow.received("screen/state")) > 300


class Counter:
    """An operator, which each start makes anew."""

    def __init__(self) -> None:
        self.count = 0

    def on_event(self, event: Any, send_output: Any) -> DoraStatus:
        if event["type"] == "INPUT":
            self.count += 1
            send_output("state", [self.count])
        return DoraStatus.STOP if self.count == 5 else DoraStatus.CONTINUE


def test_operators_timers_and_ends(cluster: InProcessCluster, drive: Path) -> None:
    drive.write_text(DRIVE.replace("lidar/scan", "dora/timer/secs/1"))
    flow = cluster.start(drive, {"planner": Counter})
    cluster.pass_time(60)
    assert flow.received("screen/state").values == [[1], [2], [3], [4], [5]]
    assert not flow.runs("screen")  # its input was closed
    assert flow.why().cause is None
