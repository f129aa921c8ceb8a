"""Explanations: events of all daemons are collected, those that do not answer are named."""

from __future__ import annotations

from support.runner.histories import failed
from support.simulation.fleets import SimulatedFleet, dataflow, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.history.entries import HistoryEntry
from dora_config.history.explanation import Explanation
from dora_config.protocol.builds import BuildDataflow, BuildEnded, FailedNode
from dora_config.protocol.control import Explain, Explained, StopDataflow
from dora_config.protocol.daemon import (
    TO_DAEMON,
    DaemonAnswered,
    DaemonCall,
    Heartbeat,
    PartHistory,
    ReadHistory,
)
from dora_config.protocol.runner import RunnerHistory
from dora_coordinator.state.events import DaemonMessageReceived


def requested(daemon: SimulatedDaemon) -> str:
    """Return the id of the request that a daemon has received."""
    found = [TO_DAEMON.decode(text) for text in daemon.from_coordinator]
    daemon.from_coordinator.clear()
    (message,) = [one for one in found if isinstance(one, DaemonCall)]
    assert isinstance(message.request, ReadHistory)
    return message.call


def answer(
    fleet: SimulatedFleet,
    daemon: SimulatedDaemon,
    *entries: HistoryEntry,
    problem: str | None = None,
) -> None:
    reply = PartHistory(history=RunnerHistory(entries=entries), problem=problem)
    message = DaemonAnswered(call=requested(daemon), reply=reply)
    assert daemon.connection is not None
    fleet.handle(DaemonMessageReceived(daemon.connection, message))


def explained(fleet: SimulatedFleet, number: int) -> Explanation:
    found = fleet.answers[number]
    assert isinstance(found, Explained)
    return found.explanation


def test_the_events_of_all_machines_are_explained_with_their_clock_offsets() -> None:
    fleet, robot, station = running_fleet()
    assert robot.connection is not None
    fleet.handle(DaemonMessageReceived(robot.connection, Heartbeat(), 60.0))
    number = fleet.request(Explain())
    answer(fleet, robot, failed(fleet.now + 61, "camera"))
    assert number not in fleet.answers
    answer(fleet, station, failed(fleet.now + 2, "detector"))
    found = explained(fleet, number)
    assert found.cause is not None
    assert (found.cause.node, found.cause.at) == ("camera", fleet.now + 1)
    assert found.status == "Running"
    assert [one.text for one in found.timeline][:2] == [
        "start requested: camera on robot, detector on station",
        "runs on all machines",
    ]


def test_daemons_that_do_not_answer_are_named() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(Explain())
    answer(fleet, robot, problem="the runner\thas not answered for 2 s")
    requested(station)
    fleet.pass_time(4.0)
    assert explained(fleet, number).notes == (
        'machine "robot": the runner\\thas not answered for 2 s',
        'machine "station" has not answered for 3 s: its history is missing',
    )


def test_a_machine_that_was_lost_is_the_cause() -> None:
    fleet, robot, station = running_fleet()
    fleet.disconnect(station)
    number = fleet.request(Explain())
    answer(fleet, robot)
    found = explained(fleet, number)
    assert found.status == "Degraded"
    assert found.summary == 'machine "station" became unreachable: its connection was closed'
    assert found.notes == ('machine "station" is not connected: its history is missing',)


def test_a_connection_that_is_closed_after_a_cut_counts_as_silence() -> None:
    """A cut network closes the old connection only once the machine is back."""
    fleet, robot, station = running_fleet()
    fleet.pass_time(12.0, heartbeats=False)
    fleet.disconnect(station)
    number = fleet.request(Explain())
    answer(fleet, robot)
    summary = explained(fleet, number).summary
    assert summary == 'machine "station" became unreachable: it sent nothing for 12 s'


def test_a_cut_that_the_connection_survived_is_the_cause() -> None:
    fleet = SimulatedFleet()
    robot = fleet.add_daemon("robot", machine="robot")
    fleet.settle()
    fleet.start(dataflow(camera="robot"))
    fleet.settle()
    fleet.pass_time(12.0, heartbeats=False)
    fleet.pass_time(3.0)
    number = fleet.request(Explain())
    answer(fleet, robot)
    cause = explained(fleet, number).cause
    assert cause is not None
    assert cause.text.startswith('machine "robot" became unreachable: it sent nothing for 1')
    assert cause.resolved_at is not None


def test_a_machine_that_is_lost_meanwhile() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(Explain())
    answer(fleet, robot)
    fleet.disconnect(station)
    note = 'the connection to machine "station" was lost: its history is missing'
    assert note in explained(fleet, number).notes


def test_a_refused_placement_is_explained_until_the_start_succeeds() -> None:
    fleet = SimulatedFleet()
    fleet.add_daemon("robot", machine="robot")
    fleet.settle()
    spec = dataflow(camera="robt").model_copy(update={"name": "demo"})
    fleet.start(spec)
    for ref in (None, "demo"):
        found = explained(fleet, fleet.request(Explain(dataflow=ref)))
        assert found.status == "Not started"
        assert found.summary == (
            'the dataflow could not be placed: node "camera": no matching daemon for machine id '
            '"robt"; connected: "robot"; did you mean "robot"?'
        )
    fleet.start(dataflow(camera="robot").model_copy(update={"name": "demo"}))
    fleet.settle()
    number = fleet.request(Explain())
    fleet.pass_time(4.0)
    assert explained(fleet, number).status == "Running"


def test_an_older_refused_start_does_not_hide_a_dataflow_that_ended_since() -> None:
    fleet = SimulatedFleet()
    robot = fleet.add_daemon("robot", machine="robot")
    fleet.settle()
    fleet.start(dataflow(camera="robt").model_copy(update={"name": "demo"}))
    fleet.pass_time(60.0)
    fleet.start(dataflow(camera="robot"))
    fleet.settle()
    fleet.request(StopDataflow())
    fleet.settle()
    number = fleet.request(Explain())
    answer(fleet, robot)
    assert explained(fleet, number).status == "Finished"
    named = fleet.request(Explain(dataflow="demo"))
    assert explained(fleet, named).status == "Not started"
    fleet.pass_time(60.0)
    fleet.start(dataflow(camera="robt"))
    assert explained(fleet, fleet.request(Explain())).status == "Not started"


def test_a_failed_build_is_explained() -> None:
    fleet = SimulatedFleet()
    robot = fleet.add_daemon("robot", machine="robot")
    fleet.settle()
    (node,) = dataflow(camera="robot").resolved.nodes
    built = node.model_copy(update={"build": ("make",)})
    spec = dataflow(camera="robot").model_copy(update={"name": "demo"})
    resolved = spec.resolved.model_copy(update={"nodes": (built,)})
    fleet.request(BuildDataflow(spec=spec.model_copy(update={"resolved": resolved})))
    (message,) = [TO_DAEMON.decode(text) for text in robot.from_coordinator]
    failure = FailedNode(node="camera", message="make: not found")
    assert robot.connection is not None
    ended = BuildEnded(build_id=message.build_id, failures=(failure,))  # type: ignore[union-attr]
    fleet.handle(DaemonMessageReceived(robot.connection, ended))
    found = explained(fleet, fleet.request(Explain(dataflow="demo")))
    assert found.summary == (
        'the dataflow could not be built: daemon "robot", node "camera": make: not found'
    )


def test_without_dataflows_lost_machines_are_named() -> None:
    fleet = SimulatedFleet()
    robot = fleet.add_daemon("robot", machine="robot")
    fleet.settle()
    fleet.disconnect(robot)
    fleet.now += 5.0
    found = explained(fleet, fleet.request(Explain()))
    assert (found.status, found.notes) == (
        "No dataflows",
        ('machine "robot" is not connected: its last message came 5 s ago from robot:1',),
    )


def test_without_dataflows_none_has_ended() -> None:
    fleet = SimulatedFleet()
    fleet.add_daemon("robot", machine="robot")
    fleet.settle()
    found = explained(fleet, fleet.request(Explain()))
    assert found.summary == "the coordinator has no dataflows; start one: `dora start FILE`"


def test_unknown_names_are_refused() -> None:
    fleet, _, _ = running_fleet()
    failure = fleet.failures[fleet.request(Explain(dataflow="other"))]
    assert (failure.code, failure.message) == ("not_found", 'no dataflow with name "other"')


def test_of_several_dataflows_the_one_in_trouble_is_explained() -> None:
    fleet, robot, station = running_fleet()
    fleet.start(dataflow(logger="robot").model_copy(update={"name": "calm"}))
    fleet.settle()
    failure = fleet.failures[fleet.request(Explain())]
    assert failure.code == "ambiguous"
    fleet.disconnect(station)
    number = fleet.request(Explain())
    answer(fleet, robot)
    assert explained(fleet, number).status == "Degraded"


def test_an_ended_dataflow_is_explained_and_a_cancelled_request_is_not_answered() -> None:
    fleet, robot, station = running_fleet()
    fleet.request(StopDataflow())
    fleet.settle()
    number = fleet.request(Explain())
    fleet.leave(number)
    robot.from_coordinator.clear()
    station.from_coordinator.clear()
    other = fleet.request(Explain())
    answer(fleet, robot)
    answer(fleet, station)
    assert explained(fleet, other).summary == "the dataflow ended because a user stopped it"
    assert number not in fleet.answers
