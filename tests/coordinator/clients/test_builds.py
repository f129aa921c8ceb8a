"""Builds on daemons: shares, progress, and each kind of end."""

from __future__ import annotations

from support.simulation.fleet_simulation import COORDINATOR, DAEMON

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol.builds import (
    BuildDataflow,
    BuildEnded,
    BuildEvents,
    BuildEventsAck,
    BuildPart,
    BuildProgress,
    BuildTriggered,
    Built,
    BuiltNode,
    CancelBuild,
    FailedNode,
    NodeBuildEvent,
)
from dora_config.protocol.control import ControlRequest, StartDataflow
from dora_config.protocol.daemon import DaemonMessage, Register
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import (
    AnswerClient,
    Command,
    FailClient,
    SendProgress,
    SendToDaemon,
)
from dora_coordinator.state.events import (
    BuildProgressSent,
    ClientCancelled,
    ClientDisconnected,
    ClientRequested,
    DaemonDisconnected,
    DaemonMessageReceived,
    DaemonRegistered,
    Event,
    TimerFired,
    TimerKey,
)
from dora_coordinator.state.identities import Proof

BUILD = "01234567-89ab-cdef-0123-456789abcdef"
ROBOT, STATION = 1, 2
"""Numbers of connections."""


def spec(**built_on: str) -> DataflowSpec:
    nodes = (
        ResolvedNode(id="left", build=("make",), deploy=ResolvedDeploy(machine="robot")),
        ResolvedNode(id="idle", deploy=ResolvedDeploy(machine="robot")),
        ResolvedNode(id="right", build=("make",), deploy=ResolvedDeploy(machine="station")),
    )
    return DataflowSpec(resolved=ResolvedDataflow(nodes=nodes), built_on=built_on)


class Cluster:
    """A coordinator with two daemons; collects its commands."""

    def __init__(self) -> None:
        self.state = CoordinatorState(Settings(), COORDINATOR)
        for connection, machine in ((ROBOT, "robot"), (STATION, "station")):
            register = Register(
                party=DAEMON, instance=machine, incarnation="1", machine_id=machine, public_key=""
            )
            self.handle(DaemonRegistered(connection, register, "here", Proof(machine)))
        self.commands: list[Command] = []

    def handle(self, event: Event) -> list[Command]:
        self.commands = self.state.handle(event, 0.0)
        return self.commands

    def request(self, request: ControlRequest) -> list[Command]:
        return self.handle(ClientRequested(9, 1, request, BUILD))

    def build(self) -> list[Command]:
        return self.request(BuildDataflow(spec=spec()))

    def send(self, connection: int, message: DaemonMessage) -> list[Command]:
        return self.handle(DaemonMessageReceived(connection, message))

    def sent(self) -> list[tuple[str, object]]:
        return [(c.daemon, c.message) for c in self.commands if isinstance(c, SendToDaemon)]


CANCEL = CancelBuild(build_id=BUILD)


def test_each_daemon_builds_its_nodes_that_have_a_build_command() -> None:
    cluster = Cluster()
    cluster.build()
    requested = {
        daemon: [node.id for node in message.spec.resolved.nodes]
        for daemon, message in cluster.sent()
        if isinstance(message, BuildPart)
    }
    assert requested == {"robot": ["left"], "station": ["right"]}
    assert SendProgress(9, 1, BuildTriggered(build_id=BUILD)) in cluster.commands


def test_progress_is_forwarded_one_message_at_a_time() -> None:
    cluster = Cluster()
    cluster.build()
    news = (NodeBuildEvent(node="left", what="output", text="x"),)
    events = BuildEvents(build_id=BUILD, events=news, dropped=2)
    progress = BuildProgress(build_id=BUILD, daemon="robot", events=news, dropped=2)
    assert cluster.send(ROBOT, events) == [SendProgress(9, 1, progress)]
    cluster.handle(BuildProgressSent(BUILD, "robot"))
    assert cluster.sent() == [("robot", BuildEventsAck(build_id=BUILD))]


def test_a_build_is_answered_when_all_daemons_have_finished() -> None:
    cluster = Cluster()
    cluster.build()
    left = BuiltNode(node="left", commit="c0ffee")
    assert cluster.send(ROBOT, BuildEnded(build_id=BUILD, nodes=(left,))) == []
    cluster.send(STATION, BuildEnded(build_id=BUILD, nodes=(BuiltNode(node="right"),)))
    (answer,) = [c.answer for c in cluster.commands if isinstance(c, AnswerClient)]
    assert isinstance(answer, Built)
    found = [(one.node, one.daemon, one.commit) for one in answer.nodes]
    assert found == [("left", "robot", "c0ffee"), ("right", "station", None)]


def failure(commands: list[Command]) -> str:
    (failed,) = [command for command in commands if isinstance(command, FailClient)]
    return failed.message


def test_the_answer_contains_all_failures() -> None:
    cluster = Cluster()
    cluster.build()
    broken = FailedNode(node="left", message="no compiler\x1b2")
    assert cluster.send(ROBOT, BuildEnded(build_id=BUILD, failures=(broken,))) == []
    message = failure(cluster.handle(DaemonDisconnected(STATION)))
    assert 'daemon "robot", node "left": no compiler\\x1b2' in message
    assert 'daemon "station": the connection was lost during the build' in message


def test_a_build_is_cancelled_with_its_client() -> None:
    for event in (ClientCancelled(9, 1), ClientDisconnected(9)):
        cluster = Cluster()
        cluster.build()
        cluster.handle(event)
        assert cluster.sent() == [("robot", CANCEL), ("station", CANCEL)]
        cluster.send(ROBOT, BuildEvents(build_id=BUILD))
        assert cluster.sent() == [("robot", CANCEL)]  # it has not received the first one yet
        assert cluster.send(ROBOT, BuildEnded(build_id=BUILD)) == []


def test_a_build_that_takes_too_long_is_cancelled() -> None:
    cluster = Cluster()
    cluster.build()
    cluster.send(ROBOT, BuildEnded(build_id=BUILD, nodes=(BuiltNode(node="left"),)))
    message = failure(cluster.handle(TimerFired(TimerKey("build", BUILD))))
    assert 'daemon "station": not finished within 1200 s' in message
    assert "robot" not in message
    assert cluster.sent() == [("station", CANCEL)]


def test_a_node_starts_only_on_the_daemon_that_built_it() -> None:
    cluster = Cluster()
    message = failure(cluster.request(StartDataflow(spec=spec(left="robot", right="robot"))))
    assert '"right"' in message
    assert 'it was built on daemon "robot" and would now run on "station"' in message
