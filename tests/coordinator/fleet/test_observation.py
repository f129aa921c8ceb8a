"""What a roll-out observes of a simulated fleet."""

from __future__ import annotations

import pytest
from coordinator.fleet.test_fleet import on
from support.simulation.fleets import SimulatedFleet, fleet_of

from dora_config.cluster.rollout import RollOut
from dora_config.protocol.fleet import CopyRecord, DesiredDataflow, Fleet, FleetEntry, Rollout
from dora_coordinator.fleet.comparison import Comparison
from dora_coordinator.fleet.generations import Generations
from dora_coordinator.fleet.observation import FleetObserver


def observer(
    simulated: SimulatedFleet,
    *dataflows: DesiredDataflow,
    rollout: Rollout | None = None,
    ran: tuple[str, ...] = (),
) -> FleetObserver:
    """Return the observer of a fleet whose first generation is these dataflows.

    ``ran``: those that have run.
    """
    assert simulated.coordinator is not None
    registry, membership = simulated.coordinator.registry, simulated.coordinator.membership
    comparison = Comparison(registry, membership, generations := Generations())
    wanted = comparison.stamped(Fleet(dataflows=dataflows, rollout=rollout or Rollout()))
    reached = {name: CopyRecord(reached=1) for name in ran}
    entry = FleetEntry(generation=1, action="apply", by="ann@desk", at=0.0, changes=())
    generations.begin(entry, wanted, reached, force=False)
    return FleetObserver(comparison, RollOut())


def start(simulated: SimulatedFleet, desired: DesiredDataflow) -> None:
    """Start the copies of a dataflow of generation 1 on all its machines."""
    for machine in desired.machines or ():
        simulated.start(desired.at_generation(1).copy_for(machine))
    simulated.pass_time(15.0)


def test_what_does_not_run_differs() -> None:
    fleet = fleet_of("r1", "r2")
    view = observer(fleet, on("drive", "r1", "r2")).observe(0.0)
    assert [(one.name, one.differs, one.connected) for one in view.seen] == [
        ("drive@r1", True, True),
        ("drive@r2", True, True),
    ]
    assert set(view.copies) == set(view.differences) == {"drive@r1", "drive@r2"}
    assert set(view.decision.act) <= set(view.copies)


def test_a_machine_that_is_off_is_not_connected() -> None:
    fleet = fleet_of("r1", "r2")
    fleet.disconnect(fleet.daemons["r2"])
    view = observer(fleet, on("drive", "r1", "r2")).observe(0.0)
    assert [one.connected for one in view.seen] == [True, False]


@pytest.mark.parametrize(("healthy", "is_ready"), [(0.0, True), (5.0, False)])
def test_nodes_that_must_stay_healthy_are_ready_once_they_are_reported(
    healthy: float, is_ready: bool
) -> None:
    fleet, drive = fleet_of("r1"), on("drive", "r1")
    start(fleet, drive)
    (one,) = observer(fleet, drive, rollout=Rollout(healthy=healthy)).observe(0.0).seen
    assert (one.differs, one.trouble) == (False, None)
    assert (one.processes is not None) is is_ready


def test_a_failed_node_is_trouble() -> None:
    fleet, drive = fleet_of("r1"), on("drive", "r1")
    start(fleet, drive)
    robot = fleet.daemons["r1"]
    (runner,) = [one for one in robot.runners if one.lives]
    fleet.finish_runner(runner, robot, failed={"planner"})
    fleet.pass_time(1.0)
    (one,) = observer(fleet, drive, ran=("drive@r1",)).observe(0.0).seen
    assert (one.processes, one.differs) == (None, False)
    assert one.trouble == "failed: planner"
