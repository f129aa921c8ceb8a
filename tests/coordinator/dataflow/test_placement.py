"""Placement of nodes on connected daemons."""

from __future__ import annotations

import pytest
from support.simulation.fleets import SimulatedFleet, dataflow, pipeline

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol.builds import BuildDataflow
from dora_config.protocol.control import ChangeGraph, PlacementPlan, PlanDataflow, StartDataflow
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.runner import AddNode


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
    number = fleet.request(PlanDataflow(spec=spec))
    plan = fleet.answers[number]
    assert isinstance(plan, PlacementPlan)
    assert [(one.node, one.daemon) for one in plan.nodes] == [("net", "station")]
    assert 'labels {"gpu": "yes"}' in plan.nodes[0].reason
    assert not fleet.store


def test_a_plan_is_refused_as_the_start_would_be() -> None:
    fleet = two_machines()
    spec = dataflow(camera="robot").model_copy(update={"name": "app"})
    fleet.start(spec)
    fleet.settle()
    number = fleet.request(PlanDataflow(spec=spec))
    assert 'already a running dataflow with name "app"' in fleet.failures[number].message


def with_versions(**versions: tuple[int, int]) -> SimulatedFleet:
    """A fleet of "robot", and of "station" with other versions."""
    fleet = two_machines()
    station = fleet.daemons["station"]
    station.versions = {
        "party": ProgramVersion(program="daemon", release="9.9"),
        **versions,
    }
    fleet.disconnect(station)
    fleet.connect(station)
    fleet.settle()
    return fleet


@pytest.mark.parametrize("kind", [StartDataflow, PlanDataflow])
def test_a_start_on_machines_whose_links_do_not_fit_is_refused(
    kind: type[StartDataflow | PlanDataflow],
) -> None:
    fleet = with_versions(link_version=(3, 1))
    spec = pipeline(camera="robot", net="station")
    failure = fleet.failures[fleet.request(kind(spec=spec))]
    assert failure.code == "placement"
    assert failure.message == (
        'machines "robot" (dora 1, link protocol 1.0) and "station" (dora 9.9, link protocol 3.1) '
        "cannot exchange messages; have the same version on both: `dora cluster upgrade`"
    )
    assert not fleet.store
    assert not any(daemon.runners for daemon in fleet.daemons.values())


def test_a_build_for_machines_whose_links_do_not_fit_is_refused() -> None:
    fleet = with_versions(link_version=(3, 1))
    number = fleet.request(BuildDataflow(spec=pipeline(camera="robot", net="station")))
    assert "link protocol 3.1" in fleet.failures[number].message
    assert not fleet.progress


@pytest.mark.parametrize(
    ("version", "spec"),
    [
        ((3, 1), dataflow(camera="robot", net="station")),
        ((3, 1), pipeline(camera="robot", net="station", allow_unlinked=True)),
        ((1, 1), pipeline(camera="robot", net="station")),
    ],
    ids=["no shared edge", "allowed", "neighbouring minor version"],
)
def test_a_start_that_needs_no_fitting_links(version: tuple[int, int], spec: DataflowSpec) -> None:
    fleet = with_versions(link_version=version)
    number = fleet.request(PlanDataflow(spec=spec))
    assert isinstance(fleet.answers[number], PlacementPlan)


def test_a_machine_that_cannot_read_the_dataflow_is_named() -> None:
    fleet = with_versions(dataflow_format=(0, 4))
    expected = (
        'machine "station" runs dora 9.9, which reads dataflows of format 0.x, and this one has '
        "format 1.0; upgrade the machine: `dora cluster upgrade`"
    )
    number = fleet.start(dataflow(camera="robot", net="station"))
    assert fleet.failures[number].message == expected
    fleet.start(dataflow(camera="robot").model_copy(update={"name": "app"}))
    fleet.settle()
    added = ResolvedNode(id="net", path="net.py", deploy=ResolvedDeploy(machine="station"))
    number = fleet.request(ChangeGraph(dataflow="app", change=AddNode(node=added)))
    assert fleet.failures[number].message == expected
