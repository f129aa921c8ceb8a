"""Restarts with another specification, and restarts that are interrupted."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, fleet_of, pipeline

from dora_config.protocol.control import ReplaceDataflow, StopDataflow
from dora_testing.cluster.link import Wall


def running_fleet() -> SimulatedFleet:
    fleet = fleet_of("robot")
    fleet.start(dataflow(camera="robot").model_copy(update={"name": "app"}))
    fleet.settle()
    return fleet


def restart_with(fleet: SimulatedFleet, node: str) -> int:
    spec = dataflow(**{node: "robot"}).model_copy(update={"name": "app"})
    return fleet.request(ReplaceDataflow(dataflow="app", spec=spec))


def living(fleet: SimulatedFleet) -> list[tuple[str, ...]]:
    return [runner.nodes for runner in fleet.daemons["robot"].runners if runner.lives]


def test_a_restart_may_change_the_specification() -> None:
    fleet = running_fleet()
    number = restart_with(fleet, "lidar")
    fleet.settle()
    assert number in fleet.answers
    assert living(fleet) == [("lidar",)]


def test_what_ran_is_started_again_if_the_changed_start_fails() -> None:
    fleet = running_fleet()
    fleet.daemons["robot"].broken_nodes.add("lidar")
    number = restart_with(fleet, "lidar")
    fleet.settle()
    assert "exited with code 1; what ran before is started again" in fleet.failures[number].message
    fleet.pass_time(5)
    assert living(fleet) == [("camera",)]
    assert [status for status, _ in fleet.listed()] == ["Finished", "Failed", "Running"]


def test_what_ran_is_started_again_if_machines_of_the_changed_start_are_not_linked() -> None:
    fleet = fleet_of("robot", "base")
    fleet.start(dataflow(camera="robot", lidar="base").model_copy(update={"name": "app"}))
    fleet.settle()
    fleet.walls.add(Wall(("robot", "base")))
    spec = pipeline(camera="robot", lidar="base").model_copy(update={"name": "app"})
    number = fleet.request(ReplaceDataflow(dataflow="app", spec=spec))
    fleet.pass_time(30)
    assert "cannot reach each other" in fleet.failures[number].message
    assert [status for status, _ in fleet.listed()] == ["Finished", "Failed", "Running"]
    assert living(fleet) == [("camera",)]


def test_a_stop_while_the_changed_dataflow_starts_is_final() -> None:
    fleet = running_fleet()
    restart_with(fleet, "lidar")
    daemon = fleet.daemons["robot"]
    while living(fleet) != [("lidar",)]:
        for step in (fleet.step_to_daemon, fleet.step_runner_event, fleet.step_to_coordinator):
            step(daemon)
        for runner in list(daemon.runners):
            if runner.phase == "stopping":
                fleet.step_runner(runner, daemon)
    fleet.request(StopDataflow(dataflow="app"))
    fleet.pass_time(60)
    assert living(fleet) == []


def test_a_restart_that_a_killed_coordinator_interrupts_is_continued() -> None:
    """At each write, with the same and with another specification."""
    for node in ("camera", "lidar"):
        for write in range(1, 12):
            fleet = running_fleet()
            fleet.crash_in = write
            restart_with(fleet, node)
            fleet.settle()
            if fleet.coordinator is None:
                fleet.crash_in = 0
                fleet.start_coordinator()
            fleet.heal(60)
            assert len(living(fleet)) == 1, (node, write)
            assert fleet.listed()[-1] == ("Running", None), (node, write)
