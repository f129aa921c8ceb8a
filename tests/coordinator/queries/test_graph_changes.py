"""Changes of nodes and edges, with the real agents of a simulated fleet."""

from __future__ import annotations

from typing import Any

import pytest
from support.simulation.fleets import SimulatedFleet, pipeline, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.dataflow.resolved import ResolvedDeploy, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import LogSource, OutputSource
from dora_config.protocol.calls import ChangePart
from dora_config.protocol.control import (
    ChangeGraph,
    GraphChanged,
    RestartDataflow,
    Restarted,
    StopDataflow,
)
from dora_config.protocol.daemon import TO_DAEMON, DaemonCall
from dora_config.protocol.runner import (
    AddNode,
    ConnectInput,
    DisconnectInput,
    GraphChange,
    RemoveNode,
    ReplaceNode,
)

CROSSING = ConnectInput(source="camera", output="out", target="logger", input="extra")

LOGS_OF_CAMRA = ResolvedInput(source=LogSource(level="info", node="camra"))


def two_machines() -> tuple[SimulatedFleet, SimulatedDaemon, SimulatedDaemon]:
    """camera and plot on the robot, logger on the station; no edge between the machines."""
    fleet, robot, station = running_fleet(pipeline(camera="robot", plot="robot"))
    return fleet, robot, station


def change(fleet: SimulatedFleet, request: GraphChange) -> int:
    number = fleet.request(ChangeGraph(change=request))
    fleet.settle()
    return number


def node(name: str, machine: str | None = "station", **fields: object) -> ResolvedNode:
    return ResolvedNode.model_validate(
        {
            "id": name,
            "path": f"{name}.py",
            "deploy": ResolvedDeploy(machine=machine),
            "outputs": ("out",),
            **fields,
        }
    )


def with_logger() -> tuple[SimulatedFleet, SimulatedDaemon, SimulatedDaemon]:
    fleet, robot, station = two_machines()
    number = change(fleet, AddNode(node=node("logger")))
    assert isinstance(fleet.answers[number], GraphChanged)
    return fleet, robot, station


def stored_nodes(fleet: SimulatedFleet) -> dict[str, list[str]]:
    """Return the inputs of each node in the store, as `input <- source`."""
    ((_, spec),) = fleet.store.values()
    return {
        one.id: [f"{name} <- {wanted.source}" for name, wanted in one.inputs.items()]
        for one in spec.resolved.nodes
    }


def refused(fleet: SimulatedFleet, request: GraphChange) -> str:
    return fleet.failures[change(fleet, request)].message


def test_a_node_is_added_on_a_machine_that_had_none() -> None:
    fleet, _, station = with_logger()
    assert station.runners[0].phase == "running"
    assert stored_nodes(fleet) == {"camera": [], "plot": ["in <- camera/out"], "logger": []}
    (record, spec), *_ = fleet.store.values()
    assert {part.daemon: part.nodes for part in record.parts} == {
        "robot": ("camera", "plot"),
        "station": ("logger",),
    }
    assert [one["id"] for one in spec.descriptor["nodes"]] == ["camera", "plot", "logger"]
    assert fleet.listed() == [("Running", None)]


def test_a_node_that_does_not_start_there_leaves_nothing() -> None:
    fleet, _, station = two_machines()
    station.broken_nodes = {"logger"}
    message = refused(fleet, AddNode(node=node("logger")))
    assert message == 'node "logger" exited with code 1'
    assert stored_nodes(fleet).keys() == {"camera", "plot"}
    ((record, _),) = fleet.store.values()
    assert [part.daemon for part in record.parts] == ["robot"]
    assert fleet.coordinator is not None
    assert fleet.coordinator.registry.unfinished_daemons() == ["robot"]
    station.broken_nodes = set()
    assert isinstance(fleet.answers[change(fleet, AddNode(node=node("logger")))], GraphChanged)


def test_an_edge_between_machines_gets_a_link() -> None:
    fleet, robot, station = with_logger()
    number = change(fleet, CROSSING)
    assert fleet.answers[number] == GraphChanged(uuid=next(iter(fleet.store)), daemon="station")
    for daemon in (robot, station):
        (link,) = [runner.link for runner in daemon.runners if runner.link is not None]
        assert [edge.input for edge in link.edges] == ["extra"]
        assert [peer.state for peer in link.peers.values()] == ["connected"]
    ends = DisconnectInput(**CROSSING.model_dump(include={"source", "output", "target", "input"}))
    change(fleet, ends)
    assert stored_nodes(fleet)["logger"] == []
    assert [runner.link.edges for runner in robot.runners if runner.link is not None] == [()]


def test_a_refusal_of_the_runner_changes_nothing() -> None:
    fleet, robot, station = with_logger()
    station.refuses = "the node has no memory"
    assert refused(fleet, CROSSING) == "the node has no memory"
    assert stored_nodes(fleet)["logger"] == []
    assert [runner.link for runner in robot.runners] == [None]
    station.refuses = None
    assert isinstance(fleet.answers[change(fleet, CROSSING)], GraphChanged)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (AddNode(node=node("camera", "robot")), "exists already"),
        (AddNode(node=node("x", "moon")), "no matching daemon"),
        (
            AddNode(
                node=node(
                    "x", inputs={"a": ResolvedInput(source=OutputSource(node="y", output="out"))}
                )
            ),
            'no node "y"',
        ),
        (RemoveNode(node="nope"), "its nodes: camera, plot"),
        (ReplaceNode(node=node("plot", None)), "same inputs"),
        (ReplaceNode(node=node("camera", "station")), "stays on its machine"),
        (ReplaceNode(node=node("camera", None, outputs=())), "lacks outputs"),
        (CROSSING, 'no node "logger"'),
        (ConnectInput(source="camera", output="x", target="plot", input="b"), "does not exist"),
        (
            ConnectInput(source="camera", output="out", target="plot", input="in"),
            "disconnect this one",
        ),
        (
            DisconnectInput(source="camera", output="out", target="plot", input="b"),
            "it reads nothing",
        ),
        (
            ConnectInput(source="dora", output="timer/hours/1", target="plot", input="tick"),
            "unknown timer unit",
        ),
        (
            ConnectInput(source="dora", output="logs/info/camra", target="plot", input="lines"),
            'no node "camra"; did you mean "camera"?',
        ),
        (
            AddNode(node=node("x", inputs={"lines": LOGS_OF_CAMRA})),
            'no node "camra"; did you mean "camera"?',
        ),
    ],
)
def test_changes_that_contradict_the_dataflow_are_refused(
    request_: GraphChange, message: str
) -> None:
    fleet, *_ = two_machines()
    before = stored_nodes(fleet)
    assert message in refused(fleet, request_)
    assert stored_nodes(fleet) == before


def test_a_removed_node_is_disconnected_on_other_machines() -> None:
    fleet, robot, _ = with_logger()
    change(fleet, CROSSING)
    assert isinstance(fleet.answers[change(fleet, RemoveNode(node="camera"))], GraphChanged)
    assert stored_nodes(fleet)["logger"] == []
    assert [one.node.id for one in robot.runners[0].definitions.nodes] == ["plot"]


def test_timers_and_logs_are_connected_and_disconnected() -> None:
    fleet, robot, station = with_logger()
    ends: dict[str, Any] = {"source": "dora", "target": "logger"}
    timer = {"output": "timer/hz/10", "input": "tick", **ends}
    logs = {"output": "logs/warn", "input": "lines", **ends}
    for one in (timer, logs):
        assert isinstance(fleet.answers[change(fleet, ConnectInput(**one))], GraphChanged)
    stored = ["tick <- dora/timer/millis/100", "lines <- dora/logs/warn"]
    assert stored_nodes(fleet)["logger"] == stored
    for daemon in (robot, station):  # lines of the other machine
        (link,) = [runner.link for runner in daemon.runners if runner.link is not None]
        assert [(edge.output, edge.input) for edge in link.edges] == [("logs/warn", "lines")]
    for one in (timer, logs):
        assert isinstance(fleet.answers[change(fleet, DisconnectInput(**one))], GraphChanged)
    assert stored_nodes(fleet)["logger"] == []


def test_a_stop_ends_the_addition_on_a_further_machine() -> None:
    fleet, *_ = two_machines()
    number = fleet.request(ChangeGraph(change=AddNode(node=node("logger"))))
    fleet.request(StopDataflow())
    fleet.settle()
    assert fleet.failures[number].message == "the dataflow is being stopped"


def test_a_change_that_one_machine_misses_is_reported_as_partial() -> None:
    fleet, _, station = with_logger()
    change(fleet, CROSSING)
    fleet.kill_daemon(station)
    message = refused(fleet, RemoveNode(node="camera"))
    assert message == 'changed in part: no connection to daemon "station"'
    assert "camera" not in stored_nodes(fleet)


def test_the_only_node_cannot_be_removed() -> None:
    fleet, *_ = with_logger()
    change(fleet, RemoveNode(node="plot"))
    change(fleet, RemoveNode(node="camera"))
    assert "only node" in refused(fleet, RemoveNode(node="logger"))


def test_recovery_and_restart_use_the_changed_dataflow() -> None:
    fleet, robot, station = with_logger()
    change(fleet, CROSSING)
    new = node("camera", None, args=("fast",))
    assert isinstance(fleet.answers[change(fleet, ReplaceNode(node=new))], GraphChanged)
    fleet.kill_coordinator()
    fleet.reboot(robot)
    fleet.reboot(station)
    fleet.heal()
    assert fleet.listed() == [("Running", None)]
    assert station.runners[0].nodes == ("logger",)
    assert station.runners[0].link is not None
    assert robot.disk[next(iter(fleet.store))].spec.resolved.node("camera").args == ("fast",)
    number = fleet.request(RestartDataflow())
    fleet.settle()
    assert isinstance(fleet.answers[number], Restarted)
    assert [one.node.args for one in robot.runners[-1].definitions.nodes] == [("fast",), ()]


def test_the_daemon_dies_before_it_stores_a_change() -> None:
    fleet, robot, _ = two_machines()
    number = fleet.request(ChangeGraph(change=ReplaceNode(node=node("camera", None, args=("a",)))))
    message = TO_DAEMON.decode(robot.from_coordinator.pop())
    assert isinstance(message, DaemonCall)
    assert isinstance(message.request, ChangePart)
    robot.change(message.request, fleet.now, dies=True)
    fleet.kill_daemon(robot)
    assert "connection to daemon" in fleet.failures[number].message
    fleet.heal()  # the next daemon process reads the nodes of the runner
    ((_, spec),) = fleet.store.values()
    assert spec.resolved.node("camera").args == ("a",)
    assert robot.disk[message.request.dataflow_id].revision == 1


def test_the_coordinator_dies_before_it_stores_a_change() -> None:
    fleet, robot, station = with_logger()
    fleet.request(ChangeGraph(change=CROSSING))
    fleet.step_to_daemon(station)
    fleet.kill_coordinator()
    fleet.heal()
    assert stored_nodes(fleet)["logger"] == ["extra <- camera/out"]
    assert [runner.link is not None for runner in robot.runners] == [True]


def test_one_change_at_a_time_and_a_client_that_leaves() -> None:
    fleet, *_ = with_logger()
    first = fleet.request(ChangeGraph(change=CROSSING))
    second = fleet.request(ChangeGraph(change=RemoveNode(node="plot")))
    assert "another change" in fleet.failures[second].message
    fleet.leave(first)
    fleet.settle()
    assert stored_nodes(fleet)["logger"] == ["extra <- camera/out"]
    assert isinstance(fleet.answers[change(fleet, RemoveNode(node="plot"))], GraphChanged)


def test_a_lost_connection_fails_the_change() -> None:
    fleet, robot, _ = two_machines()
    number = fleet.request(ChangeGraph(change=RemoveNode(node="plot")))
    fleet.disconnect(robot)
    assert "was lost" in fleet.failures[number].message
    assert "no connection" in refused(fleet, RemoveNode(node="plot"))
