"""The network between daemon and coordinator is cut and healed; nodes continue."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.cut import CuttableWire, cuttable_wire
from support.dora import RunningDora, running_dora
from support.fleets.daemons import RealFleet, counting, is_running, pids, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration


IMPATIENT = (
    *("--set", "heartbeat_interval=0.2"),
    *("--set", "daemon_silence_limit=1"),
    *("--set", "coordinator_silence_limit=1"),
)


@contextmanager
def cuttable_fleet(workspace: Workspace) -> Iterator[tuple[RealFleet, CuttableWire, RunningDora]]:
    """A coordinator and a daemon that reaches it over the wire; ends the dataflow."""
    with (
        real_fleet(workspace, settings=IMPATIENT) as fleet,
        cuttable_wire(fleet.port) as wire,
        running_dora("daemon", "--coordinator-port", str(wire.port), cwd=workspace.path) as daemon,
    ):
        daemon.wait_for("connected to the coordinator")
        yield fleet, wire, daemon
        fleet.dora("stop")
        daemon.interrupt()
        daemon.wait().succeeded()


def test_a_cut_degrades_and_heals_with_nodes_untouched(workspace: Workspace) -> None:
    flow = counting(workspace)
    with cuttable_fleet(workspace) as (fleet, wire, daemon):
        uuid = fleet.start(flow)
        wait_until(lambda: len(pids(workspace)) == 2, what="two nodes")
        fleet.wait_for_messages(uuid)
        wire.cut()
        assert "no connection" in (fleet.wait_for_status("Degraded").reason or "")
        daemon.wait_for("was lost")
        fleet.wait_for_messages(uuid, 50)
        wire.heal()
        fleet.wait_for_status("Running")
        assert len(pids(workspace)) == 2
        got = fleet.messages(uuid)
        assert got == list(range(len(got)))


def test_a_cut_while_the_runner_dies_and_the_coordinator_is_killed(workspace: Workspace) -> None:
    flow = counting(workspace)
    with cuttable_fleet(workspace) as (fleet, wire, _):
        fleet.start(flow)
        wait_until(lambda: len(pids(workspace)) == 2, what="two nodes")
        wire.cut()
        fleet.wait_for_status("Degraded")
        os.kill(fleet.runner_pid(), signal.SIGKILL)
        fleet.coordinator.process.kill()
        wait_until(lambda: not any(map(is_running, pids(workspace))), what="the nodes to end")
        fleet.restart_coordinator()
        assert fleet.listed()[-1].status == "Recovering"
        wire.heal()
        fleet.wait_for_status("Running")
        wait_until(lambda: len(pids(workspace)) == 4, what="two new nodes")
        assert all(map(is_running, pids(workspace)[2:]))
