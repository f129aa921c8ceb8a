"""Builds on daemons: who is asked, what is passed on, and how each way to end ends."""

from __future__ import annotations

from support.fleet_simulation import COORDINATOR, DAEMON

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
    CancelBuild,
    FailedNode,
    NodeBuildEvent,
    PreparedNode,
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

BUILD = "01234567-89ab-cdef-0123-456789abcdef"
ROBOT, STATION = 1, 2
"""Connections."""


def spec(**built_on: str) -> DataflowSpec:
    nodes = (
        ResolvedNode(id="left", build=("make",), deploy=ResolvedDeploy(machine="robot")),
        ResolvedNode(id="idle", deploy=ResolvedDeploy(machine="robot")),
        ResolvedNode(id="right", build=("make",), deploy=ResolvedDeploy(machine="station")),
    )
    return DataflowSpec(resolved=ResolvedDataflow(nodes=nodes), built_on=built_on)


class Desk:
    """A coordinator with two daemons; collects what it does."""

    def __init__(self) -> None:
        self.state = CoordinatorState(Settings(), COORDINATOR)
        for connection, machine in ((ROBOT, "robot"), (STATION, "station")):
            register = Register(party=DAEMON, instance=machine, incarnation="1", machine_id=machine)
            self.happen(DaemonRegistered(connection, register, "here"))
        self.done: list[Command] = []

    def happen(self, event: Event) -> list[Command]:
        self.done = self.state.handle(event, 0.0)
        return self.done

    def ask(self, request: ControlRequest) -> list[Command]:
        return self.happen(ClientRequested(9, 1, request, BUILD))

    def build(self) -> list[Command]:
        return self.ask(BuildDataflow(spec=spec()))

    def says(self, connection: int, message: DaemonMessage) -> list[Command]:
        return self.happen(DaemonMessageReceived(connection, message))

    def sent(self) -> list[tuple[str, object]]:
        return [(c.daemon, c.message) for c in self.done if isinstance(c, SendToDaemon)]


CANCEL = CancelBuild(build_id=BUILD)


def test_each_daemon_is_asked_for_its_nodes_that_have_something_to_build() -> None:
    desk = Desk()
    desk.build()
    asked = {
        daemon: [node.id for node in message.spec.resolved.nodes]
        for daemon, message in desk.sent()
        if isinstance(message, BuildPart)
    }
    assert asked == {"robot": ["left"], "station": ["right"]}
    assert SendProgress(9, 1, BuildTriggered(build_id=BUILD)) in desk.done


def test_news_are_passed_on_one_portion_at_a_time() -> None:
    desk = Desk()
    desk.build()
    news = (NodeBuildEvent(node="left", what="output", text="x"),)
    told = BuildEvents(build_id=BUILD, news=news, left_out=2)
    progress = BuildProgress(build_id=BUILD, daemon="robot", news=news, left_out=2)
    assert desk.says(ROBOT, told) == [SendProgress(9, 1, progress)]
    desk.happen(BuildProgressSent(BUILD, "robot"))
    assert desk.sent() == [("robot", BuildEventsAck(build_id=BUILD))]


def test_it_is_built_once_all_daemons_have_built() -> None:
    desk = Desk()
    desk.build()
    left = PreparedNode(node="left", commit="c0ffee")
    assert desk.says(ROBOT, BuildEnded(build_id=BUILD, nodes=(left,))) == []
    desk.says(STATION, BuildEnded(build_id=BUILD, nodes=(PreparedNode(node="right"),)))
    (answer,) = [c.answer for c in desk.done if isinstance(c, AnswerClient)]
    assert isinstance(answer, Built)
    found = [(one.node, one.daemon, one.commit) for one in answer.nodes]
    assert found == [("left", "robot", "c0ffee"), ("right", "station", None)]


def failure(commands: list[Command]) -> str:
    (failed,) = [command for command in commands if isinstance(command, FailClient)]
    return failed.message


def test_all_failures_are_told_at_the_end() -> None:
    desk = Desk()
    desk.build()
    broken = FailedNode(node="left", message="no compiler", output=("line 1", "line\x1b2"))
    assert desk.says(ROBOT, BuildEnded(build_id=BUILD, failures=(broken,))) == []
    said = failure(desk.happen(DaemonDisconnected(STATION)))
    assert 'daemon "robot", node "left": no compiler\n  line 1\n  line\\x1b2' in said
    assert 'daemon "station": the connection was lost during the build' in said


def test_it_ends_with_the_client() -> None:
    for event in (ClientCancelled(9, 1), ClientDisconnected(9)):
        desk = Desk()
        desk.build()
        desk.happen(event)
        assert desk.sent() == [("robot", CANCEL), ("station", CANCEL)]
        desk.says(ROBOT, BuildEvents(build_id=BUILD))
        assert desk.sent() == [("robot", CANCEL)]  # it had not heard of it yet
        assert desk.says(ROBOT, BuildEnded(build_id=BUILD)) == []


def test_it_ends_when_time_is_up() -> None:
    desk = Desk()
    desk.build()
    desk.says(ROBOT, BuildEnded(build_id=BUILD, nodes=(PreparedNode(node="left"),)))
    said = failure(desk.happen(TimerFired(TimerKey("build", BUILD))))
    assert 'daemon "station": not finished within 1200 s' in said
    assert "robot" not in said
    assert desk.sent() == [("station", CANCEL)]


def test_a_node_is_not_started_where_it_was_not_built() -> None:
    desk = Desk()
    said = failure(desk.ask(StartDataflow(spec=spec(left="robot", right="robot"))))
    assert '"right"' in said
    assert 'it was built on daemon "robot" and would now run on "station"' in said
