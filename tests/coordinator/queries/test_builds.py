"""Builds on daemons: shares, progress, and each kind of end."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, fleet_of

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
from dora_config.protocol.control import Explain, Explained, StartDataflow
from dora_config.protocol.daemon import TO_DAEMON, CoordinatorMessage, DaemonMessage
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import DaemonMessageReceived


def spec(**built_on: str) -> DataflowSpec:
    nodes = (
        ResolvedNode(id="left", build=("make",), deploy=ResolvedDeploy(machine="robot")),
        ResolvedNode(id="idle", deploy=ResolvedDeploy(machine="robot")),
        ResolvedNode(id="right", build=("make",), deploy=ResolvedDeploy(machine="station")),
    )
    return DataflowSpec(resolved=ResolvedDataflow(nodes=nodes), name="flow", built_on=built_on)


class Building:
    """A fleet of "robot" and "station" that builds a dataflow."""

    def __init__(self) -> None:
        self.fleet = SimulatedFleet(Settings(build_timeout=5.0))
        for name in ("robot", "station"):
            self.fleet.add_daemon(name, name)
        self.fleet.settle()
        self.number = self.fleet.request(BuildDataflow(spec=spec()))
        (triggered,) = self.fleet.progress
        assert isinstance(triggered, BuildTriggered)
        self.id = triggered.build_id
        self.fleet.progress.clear()
        self.shares = {name: self.sent(name) for name in ("robot", "station")}

    def sent(self, name: str) -> list[CoordinatorMessage]:
        """Return and remove what was sent to a daemon."""
        queue = self.fleet.daemons[name].from_coordinator
        found = [TO_DAEMON.decode(text) for text in queue]
        queue.clear()
        return found

    def send(self, name: str, message: DaemonMessage) -> None:
        connection = self.fleet.daemons[name].connection
        assert connection is not None
        self.fleet.handle(DaemonMessageReceived(connection, message))

    def end(self, name: str, *nodes: BuiltNode, failures: tuple[FailedNode, ...] = ()) -> None:
        self.send(name, BuildEnded(build_id=self.id, nodes=nodes, failures=failures))

    @property
    def failure(self) -> str:
        return self.fleet.failures[self.number].message


def test_each_daemon_builds_its_nodes_that_have_a_build_command() -> None:
    requested = {
        name: [node.id for node in message.spec.resolved.nodes]
        for name, messages in Building().shares.items()
        for message in messages
        if isinstance(message, BuildPart)
    }
    assert requested == {"robot": ["left"], "station": ["right"]}


def test_progress_is_forwarded_one_message_at_a_time() -> None:
    build = Building()
    news = (NodeBuildEvent(node="left", what="output", text="x"),)
    build.send("robot", BuildEvents(build_id=build.id, events=news, dropped=2))
    progress = BuildProgress(build_id=build.id, daemon="robot", events=news, dropped=2)
    assert build.fleet.progress == [progress]
    assert build.sent("robot") == []
    build.fleet.written()
    assert build.sent("robot") == [BuildEventsAck(build_id=build.id)]


def test_a_build_is_answered_when_all_daemons_have_finished() -> None:
    build = Building()
    build.end("robot", BuiltNode(node="left", commit="c0ffee"))
    assert build.number not in build.fleet.answers
    build.end("station", BuiltNode(node="right"))
    answer = build.fleet.answers[build.number]
    assert isinstance(answer, Built)
    assert answer.build_id == build.id
    found = [(one.node, one.daemon, one.commit) for one in answer.nodes]
    assert found == [("left", "robot", "c0ffee"), ("right", "station", None)]


def test_the_answer_contains_all_failures() -> None:
    build = Building()
    build.end("robot", failures=(FailedNode(node="left", message="no compiler\x1b2"),))
    assert build.number not in build.fleet.failures
    build.fleet.disconnect(build.fleet.daemons["station"])
    assert 'daemon "robot", node "left": no compiler\\x1b2' in build.failure
    assert 'daemon "station": the connection was lost during the build' in build.failure
    explained = build.fleet.answers[build.fleet.request(Explain(dataflow="flow"))]
    assert isinstance(explained, Explained)
    assert "could not be built" in explained.explanation.summary


def test_a_build_is_cancelled_with_its_client() -> None:
    build = Building()
    build.fleet.leave(build.number)
    cancelled = [CancelBuild(build_id=build.id)]
    assert [build.sent("robot"), build.sent("station")] == [cancelled, cancelled]
    build.send("robot", BuildEvents(build_id=build.id))
    assert build.sent("robot") == cancelled  # it has not received the first one yet
    build.end("robot")
    assert build.sent("robot") == []


def test_a_build_that_takes_too_long_is_cancelled() -> None:
    build = Building()
    build.end("robot", BuiltNode(node="left"))
    build.fleet.now += build.fleet.settings.build_timeout
    build.fleet.fire_due()
    assert 'daemon "station": not finished within 5 s' in build.failure
    assert "robot" not in build.failure
    assert build.sent("station") == [CancelBuild(build_id=build.id)]


def test_a_node_starts_only_on_the_daemon_that_built_it() -> None:
    fleet = fleet_of("robot", "station")
    start = StartDataflow(spec=spec(left="robot", right="robot"))
    message = fleet.failures[fleet.request(start)].message
    assert '"right"' in message
    assert 'it was built on daemon "robot" and would now run on "station"' in message
