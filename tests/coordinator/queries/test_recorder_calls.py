"""Requests about recordings, forwarded to daemons."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.protocol.daemon import TO_DAEMON, DaemonAnswered, DaemonCall
from dora_config.protocol.recordings import (
    CallRecorders,
    ListRecordings,
    MachineReply,
    RecorderReplies,
    RecordingStates,
)
from dora_coordinator.state.events import DaemonMessageReceived

STATES = RecordingStates()


def received(daemon: SimulatedDaemon) -> str:
    """Return the id of the only call that a daemon has received."""
    (text,) = daemon.from_coordinator
    daemon.from_coordinator.clear()
    message = TO_DAEMON.decode(text)
    assert isinstance(message, DaemonCall)
    assert message.request == ListRecordings()
    return message.call


def answer(fleet: SimulatedFleet, daemon: SimulatedDaemon, message: DaemonAnswered) -> None:
    assert daemon.connection is not None
    fleet.handle(DaemonMessageReceived(daemon.connection, message))


def test_all_connected_daemons_are_called_and_their_replies_collected() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(CallRecorders(request=ListRecordings()))
    call = received(robot)
    assert received(station) == call
    answer(fleet, robot, DaemonAnswered(call=call, reply=STATES))
    assert number not in fleet.answers
    answer(fleet, station, DaemonAnswered(call=call, problem="disk\tgone"))
    assert fleet.answers[number] == RecorderReplies(
        replies=(MachineReply(daemon="robot", reply=STATES),),
        problems={"station": r'daemon "station": disk\tgone'},
    )


def test_a_daemon_that_is_not_connected_or_leaves_is_a_problem() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(CallRecorders(daemons=("robot", "attic"), request=ListRecordings()))
    received(robot)
    assert not station.from_coordinator
    fleet.disconnect(robot)
    assert fleet.answers[number] == RecorderReplies(
        problems={
            "attic": 'no connection to daemon "attic"',
            "robot": 'the connection to daemon "robot" was lost',
        }
    )


def test_a_cancelled_call_and_a_late_reply_are_ignored() -> None:
    fleet, robot, _ = running_fleet()
    number = fleet.request(CallRecorders(daemons=("robot",), request=ListRecordings()))
    call = received(robot)
    fleet.leave(number)
    answer(fleet, robot, DaemonAnswered(call=call, reply=STATES))
    answer(fleet, robot, DaemonAnswered(call="unknown", reply=STATES))
    assert number not in fleet.answers


def test_a_daemon_that_does_not_answer_is_a_problem() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(CallRecorders(request=ListRecordings()))
    call = received(robot)
    received(station)
    answer(fleet, robot, DaemonAnswered(call=call, reply=STATES))
    fleet.pass_time(120.0)  # two recorders may take as long to start
    assert number not in fleet.answers
    fleet.pass_time(31.0)
    assert fleet.answers[number] == RecorderReplies(
        replies=(MachineReply(daemon="robot", reply=STATES),),
        problems={"station": 'daemon "station" has not answered for 150 s'},
    )
    answer(fleet, station, DaemonAnswered(call=call, reply=STATES))
