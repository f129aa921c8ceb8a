"""Placement of nodes on connected daemons."""

from __future__ import annotations

from support.simulation.fleet_simulation import SimulatedFleet, dataflow

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol.control import (
    PlacementPlan,
    StartDataflow,
)


def two_machines() -> SimulatedFleet:
    fleet = SimulatedFleet()
    fleet.add_daemon("robot", "robot")
    fleet.add_daemon("station", "station", gpu="yes")
    fleet.settle()
    return fleet


def test_a_start_on_a_machine_that_is_not_connected_is_refused() -> None:
    fleet = two_machines()
    number = fleet.start(dataflow(camera="robot", ghost="unknown"))
    failure = fleet.failures[number]
    assert 'no matching daemon for machine id "unknown"' in failure.message
    assert 'connected: "robot", "station"' in failure.message
    assert failure.code == "placement"
    assert not fleet.store


def test_labels_select_the_first_daemon_that_has_all_of_them() -> None:
    fleet = two_machines()
    node = ResolvedNode(id="net", path="net.py", deploy=ResolvedDeploy(labels={"gpu": "yes"}))
    spec = dataflow().model_copy(update={"resolved": ResolvedDataflow(nodes=(node,))})
    number = fleet.request(StartDataflow(spec=spec, dry_run=True))
    plan = fleet.answers[number]
    assert isinstance(plan, PlacementPlan)
    assert [(one.node, one.daemon) for one in plan.nodes] == [("net", "station")]
    assert 'labels {"gpu": "yes"}' in plan.nodes[0].reason
    assert not fleet.store


def test_a_dry_run_is_refused_as_the_start_would_be() -> None:
    fleet = two_machines()
    spec = dataflow(camera="robot").model_copy(update={"name": "app"})
    fleet.start(spec)
    fleet.settle()
    number = fleet.request(StartDataflow(spec=spec, dry_run=True))
    assert 'already a running dataflow with name "app"' in fleet.failures[number].message
