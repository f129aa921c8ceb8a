"""A store that is older than what runs, or was lost: the machines know what was started last."""

from __future__ import annotations

import copy
from itertools import permutations

import pytest
from support.simulation.fleets import SimulatedFleet, fleet_of, pipeline, running_fleet
from support.simulation.machines import SimulatedDaemon, SimulatedRunner

from dora_config.protocol.control import ChangeGraph, RestartDataflow, StopDataflow
from dora_config.protocol.daemon import PartLost
from dora_config.protocol.runner import AddNode

APP = pipeline(counter="robot", sink="station").model_copy(update={"name": "my-app"})
AFTER = 60.0
"""Seconds after the last fault within which all is repaired or named."""


def lives(daemon: SimulatedDaemon) -> list[SimulatedRunner]:
    return [runner for runner in daemon.runners if runner.lives]


def with_store(fleet: SimulatedFleet, store: object) -> None:
    """Kill the coordinator; the next one has this store."""
    fleet.kill_coordinator()
    fleet.store.clear()
    assert isinstance(store, dict)
    fleet.store.update(store)


def come_back(
    fleet: SimulatedFleet, first: SimulatedDaemon, second: SimulatedDaemon, apart: float
) -> None:
    fleet.start_coordinator()
    for daemon in (first, second):
        if daemon.agent is None:
            fleet.start_daemon(daemon)
        elif daemon.connection is None:
            fleet.connect(daemon)
        fleet.pass_time(apart)
    fleet.pass_time(AFTER)


def require_one_copy(fleet: SimulatedFleet) -> None:
    """Require that each node runs once, all of one dataflow, and that the two are linked."""
    found = [(daemon, runner) for daemon in fleet.daemons.values() for runner in lives(daemon)]
    assert [(d.name, r.nodes, r.phase) for d, r in found] == [
        ("robot", ("counter",), "running"),
        ("station", ("sink",), "running"),
    ]
    (one, other) = (runner for _, runner in found)
    assert one.dataflow_id == other.dataflow_id
    for runner in (one, other):
        assert runner.link is not None
        assert [peer.state for peer in runner.link.peers.values()] == ["connected"]
    running = [status for status, _ in fleet.listed() if status not in ("Finished", "Failed")]
    assert running == ["Running"], fleet.listed()


@pytest.mark.parametrize("rebooted", [(), ("robot",), ("station",), ("robot", "station")], ids=str)
@pytest.mark.parametrize("order", list(permutations(("robot", "station"))), ids=str)
@pytest.mark.parametrize("apart", [0.0, 4.0, 45.0])
@pytest.mark.parametrize("store", ["older", "empty"])
def test_what_was_started_last_runs_on_all_machines(
    store: str, apart: float, order: tuple[str, str], rebooted: tuple[str, ...]
) -> None:
    fleet, _, _ = running_fleet(APP)
    before = copy.deepcopy(fleet.store)
    fleet.pass_time(5.0)
    fleet.request(RestartDataflow(dataflow="my-app"))
    fleet.pass_time(5.0)
    require_one_copy(fleet)
    ((last,),) = {(r.dataflow_id,) for d in fleet.daemons.values() for r in lives(d)}
    with_store(fleet, before if store == "older" else {})
    for name in rebooted:
        fleet.reboot(fleet.daemons[name])
    first, second = (fleet.daemons[name] for name in order)
    come_back(fleet, first, second, apart)
    require_one_copy(fleet)
    assert lives(first)[0].dataflow_id == last
    fleet.request(RestartDataflow(dataflow="my-app"))
    fleet.pass_time(5.0)
    require_one_copy(fleet)


def test_a_machine_that_is_away_is_waited_for_by_name() -> None:
    fleet, robot, station = running_fleet(APP)
    with_store(fleet, {})
    fleet.kill_daemon(station)
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Recovering", 'waiting for daemon "station"')]
    fleet.pass_time(90.0)
    ((status, reason),) = fleet.listed()
    assert status == "Degraded"
    assert reason is not None
    assert 'machine "station" has not been connected (nodes sink)' in reason
    assert "`dora stop my-app` gives it up" in reason


def test_a_machine_without_its_disk_runs_nothing_that_others_only_claim() -> None:
    fleet, robot, station = running_fleet(APP)
    with_store(fleet, {})
    fleet.reboot(station)
    station.disk.clear()
    come_back(fleet, robot, station, 0.0)
    assert lives(station) == []
    ((_, reason),) = fleet.listed()
    assert reason is not None
    assert 'machine "station" has no record of nodes sink, which other machines name' in reason
    assert "`dora restart my-app` starts them" in reason
    fleet.request(RestartDataflow(dataflow="my-app"))
    fleet.pass_time(60.0)
    require_one_copy(fleet)


def test_what_was_started_and_stopped_after_the_copy_stays_stopped() -> None:
    fleet, robot, station = running_fleet(APP)
    before = copy.deepcopy(fleet.store)
    fleet.pass_time(5.0)
    fleet.request(RestartDataflow(dataflow="my-app"))
    fleet.pass_time(5.0)
    fleet.request(StopDataflow(dataflow="my-app"))
    fleet.pass_time(5.0)
    with_store(fleet, before)
    come_back(fleet, robot, station, 4.0)
    assert [*lives(robot), *lives(station)] == []
    assert all(status == "Finished" for status, _ in fleet.listed()), fleet.listed()


def test_a_store_from_before_a_further_machine_takes_it_over() -> None:
    fleet = fleet_of("robot", "station", "arm")
    fleet.start(APP)
    fleet.settle()
    before = copy.deepcopy(fleet.store)
    (node,) = pipeline(motor="arm").resolved.nodes
    fleet.request(ChangeGraph(dataflow="my-app", change=AddNode(node=node)))
    fleet.pass_time(10.0)
    with_store(fleet, before)
    fleet.reboot(fleet.daemons["arm"])
    come_back(fleet, fleet.daemons["robot"], fleet.daemons["arm"], 4.0)
    fleet.connect(fleet.daemons["station"])
    fleet.pass_time(60.0)
    (motor,) = lives(fleet.daemons["arm"])
    assert (motor.nodes, motor.phase) == (("motor",), "running")
    assert fleet.listed() == [("Running", None)]
    ((record, spec),) = fleet.store.values()
    assert {part.daemon for part in record.parts} == {"robot", "station", "arm"}
    assert [one.id for one in spec.resolved.nodes] == ["counter", "sink", "motor"]


def test_a_machine_without_a_part_that_is_to_end_is_not_stopped_again_and_again() -> None:
    fleet, robot, _ = running_fleet(APP)
    fleet.disconnect(robot)
    fleet.request(StopDataflow(dataflow="my-app"))
    fleet.pass_time(60.0)
    fleet.reboot(robot)
    robot.disk.clear()
    fleet.start_daemon(robot)
    (uuid,) = fleet.store
    robot.send(PartLost(dataflow_id=uuid, attempt=0, reason="the dataflow does not run here"))
    fleet.settle()
    assert [status for status, _ in fleet.listed()] == ["Failed"]


def test_the_last_start_has_the_name_although_an_earlier_one_is_still_being_stopped() -> None:
    fleet, robot, station = running_fleet(APP)
    before = copy.deepcopy(fleet.store)
    fleet.pass_time(5.0)
    fleet.request(RestartDataflow(dataflow="my-app"))
    fleet.pass_time(5.0)
    with_store(fleet, before)
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.settle()  # the station has not confirmed the end of the earlier start
    fleet.kill_coordinator()
    come_back(fleet, robot, station, 0.0)
    assert fleet.coordinator is not None
    live = fleet.coordinator.registry.live_named("my-app")
    assert live is not None
    assert live.id == lives(robot)[0].dataflow_id
    require_one_copy(fleet)


def test_a_store_from_the_time_of_the_start_takes_over_what_runs() -> None:
    fleet = fleet_of("robot", "station")
    fleet.start(APP)
    before = copy.deepcopy(fleet.store)
    fleet.pass_time(5.0)
    require_one_copy(fleet)
    runners = [runner for daemon in fleet.daemons.values() for runner in lives(daemon)]
    with_store(fleet, before)
    come_back(fleet, fleet.daemons["station"], fleet.daemons["robot"], 4.0)
    require_one_copy(fleet)
    assert [runner for daemon in fleet.daemons.values() for runner in lives(daemon)] == runners


def test_a_part_that_an_erased_disk_lost_is_named_with_a_store_from_the_time_of_the_start() -> None:
    fleet = fleet_of("robot", "station")
    fleet.start(APP)
    before = copy.deepcopy(fleet.store)
    fleet.pass_time(5.0)
    fleet.reboot(fleet.daemons["station"])
    fleet.daemons["station"].disk.clear()
    with_store(fleet, before)
    come_back(fleet, fleet.daemons["station"], fleet.daemons["robot"], 4.0)
    fleet.pass_time(60.0)
    assert fleet.coordinator is not None
    (dataflow,) = fleet.coordinator.registry.live()
    named = fleet.coordinator.registry.named(dataflow, fleet.now)
    assert any('machine "station"' in text and "`dora restart " in text for text in named), named
