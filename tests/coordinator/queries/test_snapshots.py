"""Snapshots: one request per daemon serves all viewers; without a viewer none is sent."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.protocol.control import GetSnapshot
from dora_config.protocol.daemon import TO_DAEMON, DaemonAnswered, DaemonCall
from dora_config.protocol.runner import EdgeStatus, Statistics
from dora_config.protocol.snapshot import (
    REUSED_SECONDS,
    MachineLoad,
    MachineOperation,
    MachineSample,
    SampleMachine,
    Snapshot,
)
from dora_coordinator.queries import snapshots
from dora_coordinator.state.events import DaemonMessageReceived

LOAD = MachineLoad(cpus=4, cpu_seconds=8.0, memory_bytes=1, memory_total_bytes=2)
UPGRADE = MachineOperation(command="dora cluster upgrade", operator="ada@desk", since=1.0)


def asked(daemon: SimulatedDaemon) -> list[DaemonCall]:
    """Return the samples that a daemon was asked for, and forget them."""
    found = [TO_DAEMON.decode(text) for text in daemon.from_coordinator]
    daemon.from_coordinator.clear()
    return [message for message in found if isinstance(message, DaemonCall)]


def answer(
    fleet: SimulatedFleet, daemon: SimulatedDaemon, *, sent: int = 3, problem: str = ""
) -> None:
    (request,) = asked(daemon)
    dataflow_id = daemon.runners[0].dataflow_id
    edge = EdgeStatus(
        source="camera/image", target="detector/image", policy="drop_oldest", bound=1, sent=sent
    )
    sample = MachineSample(
        parts={dataflow_id: Statistics(at=1.0, edges=(edge,))},
        load=LOAD,
        operation=UPGRADE,
        problems=(problem,) if problem else (),
    )
    assert daemon.connection is not None
    answered = DaemonAnswered(call=request.call, reply=sample)
    fleet.handle(DaemonMessageReceived(daemon.connection, answered))


def snapshot(fleet: SimulatedFleet, number: int) -> Snapshot:
    found = fleet.answers[number]
    assert isinstance(found, Snapshot)
    return found


def test_a_snapshot_has_machines_nodes_and_the_edges_of_all_daemons() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(GetSnapshot())
    answer(fleet, robot)
    assert number not in fleet.answers
    answer(fleet, station, problem="a runner\tis slow")
    found = snapshot(fleet, number)
    assert [(one.daemon, one.load, one.operation) for one in found.machines] == [
        ("robot", LOAD, UPGRADE),
        ("station", LOAD, UPGRADE),
    ]
    assert [(one.node, one.daemon) for one in found.nodes] == [
        ("camera", "robot"),
        ("detector", "station"),
    ]
    assert [(one.target_machine, one.sent) for one in found.edges] == [
        ("robot", 3),
        ("station", 3),
    ]
    assert found.problems == ('daemon "station": a runner\\tis slow',)


def test_viewers_share_a_snapshot_for_a_second() -> None:
    fleet, robot, station = running_fleet()
    first, second = fleet.request(GetSnapshot()), fleet.request(GetSnapshot())
    answer(fleet, robot)
    answer(fleet, station)
    third = fleet.request(GetSnapshot())
    found = snapshot(fleet, first)
    assert snapshot(fleet, second) is found
    assert snapshot(fleet, third) is found
    assert not asked(robot)
    fleet.now += REUSED_SECONDS
    fleet.fire_due()
    fourth = fleet.request(GetSnapshot())
    answer(fleet, robot, sent=9)
    answer(fleet, station, sent=9)
    assert snapshot(fleet, fourth).edges[0].sent == 9


def test_without_edges_no_daemon_is_asked() -> None:
    fleet, robot, station = running_fleet()
    found = snapshot(fleet, fleet.request(GetSnapshot(edges=False)))
    assert len(found.nodes) == len(found.machines) == 2
    assert (found.edges, found.machines[0].load) == ((), None)
    assert not asked(robot)
    assert not asked(station)


def test_a_snapshot_of_one_dataflow_asks_only_its_machines() -> None:
    fleet, robot, station = running_fleet()
    fleet.start(dataflow(logger="robot"))
    fleet.settle()
    fleet.request(GetSnapshot(dataflow=robot.runners[-1].dataflow_id))
    assert not asked(station)
    (request,) = asked(robot)
    assert request.request == SampleMachine(
        dataflows=(robot.runners[-1].dataflow_id,), max_edges=8192
    )


def test_an_unknown_dataflow_fails() -> None:
    fleet, robot, _ = running_fleet()
    number = fleet.request(GetSnapshot(dataflow="nosuch"))
    assert fleet.failures[number].code == "not_found"
    assert not asked(robot)


def test_a_silent_daemon_delays_a_snapshot_only_for_a_while() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(GetSnapshot())
    answer(fleet, robot)
    fleet.now += snapshots.SAMPLE_SECONDS
    fleet.fire_due()
    found = snapshot(fleet, number)
    assert found.problems == ('daemon "station" has not answered for 3 s',)
    assert len(found.edges) == 1
    answer(fleet, station)  # too late: ignored


def test_a_daemon_that_is_lost_ends_the_wait_for_it() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(GetSnapshot())
    answer(fleet, robot)
    fleet.disconnect(station)
    found = snapshot(fleet, number)
    assert found.problems == ('the connection to daemon "station" was lost',)
    fleet.now += REUSED_SECONDS
    fleet.fire_due()
    later = fleet.request(GetSnapshot())
    answer(fleet, robot)
    assert snapshot(fleet, later).problems == ('no connection to daemon "station"',)


def test_a_client_that_left_gets_no_answer() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(GetSnapshot())
    fleet.leave()
    answer(fleet, robot)
    answer(fleet, station)
    assert number not in fleet.answers
