"""Requests that runners answer."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.protocol.calls import PartReply, RunnerCall, RunnerReplies
from dora_config.protocol.control import CallRunner, ControlRequest
from dora_config.protocol.daemon import TO_DAEMON, DaemonAnswered, DaemonCall
from dora_config.protocol.runner import (
    DeleteParam,
    Done,
    GetStatistics,
    Refusal,
    RunnerReply,
    SetParam,
    StopNode,
)
from dora_coordinator.state.events import DaemonMessageReceived


def call(
    fleet: SimulatedFleet, request: ControlRequest, *daemons: SimulatedDaemon
) -> tuple[int, str]:
    """Send a request; return its number and the id of the call that the daemons receive."""
    number = fleet.request(request)
    calls = set()
    for daemon in daemons:
        (text,) = daemon.from_coordinator
        daemon.from_coordinator.clear()
        message = TO_DAEMON.decode(text)
        assert isinstance(message, DaemonCall)
        assert isinstance(message.request, RunnerCall)
        calls.add(message.call)
    (found,) = calls
    return number, found


def answer(
    fleet: SimulatedFleet, daemon: SimulatedDaemon, call_id: str, reply: RunnerReply | None
) -> None:
    assert daemon.connection is not None
    problem = "the runner\tis gone" if reply is None else None
    message = DaemonAnswered(call=call_id, reply=reply, problem=problem)
    fleet.handle(DaemonMessageReceived(daemon.connection, message))


def test_a_call_for_a_node_goes_to_its_daemon() -> None:
    fleet, robot, station = running_fleet()
    number, call_id = call(fleet, CallRunner(node="camera", request=StopNode(node="camera")), robot)
    assert not station.from_coordinator
    answer(fleet, station, call_id, Done())
    assert number not in fleet.answers
    answer(fleet, robot, call_id, Done())
    assert fleet.answers[number] == RunnerReplies(
        replies=(PartReply(daemon="robot", reply=Done()),)
    )


def test_a_call_without_a_node_collects_replies_and_problems_of_all_parts() -> None:
    fleet, robot, station = running_fleet()
    number, call_id = call(fleet, CallRunner(request=GetStatistics()), robot, station)
    answer(fleet, robot, call_id, None)
    assert number not in fleet.answers
    answer(fleet, station, call_id, Done())
    assert fleet.answers[number] == RunnerReplies(
        replies=(PartReply(daemon="station", reply=Done()),),
        problems=('daemon "robot": the runner\\tis gone',),
    )


def test_a_call_fails_if_no_part_replies() -> None:
    fleet, robot, station = running_fleet()
    fleet.disconnect(station)
    number, call_id = call(fleet, CallRunner(request=GetStatistics()), robot)
    answer(fleet, robot, call_id, Refusal(message="unknown request"))
    failure = fleet.failures[number]
    assert failure.message == 'no connection to daemon "station"\nunknown request'


def test_a_daemon_that_is_lost_answers_its_calls() -> None:
    fleet, robot, _ = running_fleet()
    number, _ = call(fleet, CallRunner(node="camera", request=StopNode(node="camera")), robot)
    fleet.disconnect(robot)
    assert fleet.failures[number].message == 'the connection to daemon "robot" was lost'


def test_a_cancelled_call_is_not_answered() -> None:
    fleet, robot, _ = running_fleet()
    request = CallRunner(node="camera", request=StopNode(node="camera"))
    number, call_id = call(fleet, request, robot)
    fleet.leave(number)
    answer(fleet, robot, call_id, Done())
    assert number not in fleet.answers


def test_unknown_and_ended_nodes_are_refused() -> None:
    fleet, robot, _ = running_fleet()
    failure = fleet.failures[fleet.request(CallRunner(node="arm", request=StopNode(node="arm")))]
    assert 'has no node "arm"; its nodes are: camera, detector' in failure.message
    fleet.finish_runner(robot.runners[0], robot)
    fleet.settle()
    failure = fleet.failures[
        fleet.request(CallRunner(node="camera", request=StopNode(node="camera")))
    ]
    assert failure.code == "not_found"
    assert 'node "camera" of' in failure.message
    assert "has ended" in failure.message


def test_params_that_a_runner_has_set_are_stored_for_its_successors() -> None:
    fleet, robot, _ = running_fleet()
    (dataflow_id,) = fleet.store
    for value in (Refusal(message="no"), Done()):
        request = SetParam(node="camera", key="gain", value=3)
        _, call_id = call(fleet, CallRunner(node="camera", request=request), robot)
        assert not fleet.store[dataflow_id][1].params
        answer(fleet, robot, call_id, value)
    assert fleet.store[dataflow_id][1].params == {"camera": {"gain": 3}}
    fleet.reboot(robot)
    fleet.start_daemon(robot)
    fleet.settle()
    assert robot.disk[dataflow_id].spec.params == {"camera": {"gain": 3}}
    delete = CallRunner(node="camera", request=DeleteParam(node="camera", key="gain"))
    _, call_id = call(fleet, delete, robot)
    answer(fleet, robot, call_id, Done())
    assert fleet.store[dataflow_id][1].params == {"camera": {}}
