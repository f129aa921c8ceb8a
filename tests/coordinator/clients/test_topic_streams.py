"""Watches: which daemon is asked, what the client is told, and what survives whose death."""

from __future__ import annotations

import pytest
from support.fleet_simulation import FakeDaemon, SimulatedFleet, dataflow

from dora_config.protocol.control import StopDataflow, WatchTopics
from dora_config.protocol.daemon import TO_DAEMON, CoordinatorMessage, DaemonMessage
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.topics import (
    EndTopics,
    MoreTopics,
    StreamTopics,
    TopicChunk,
    TopicsEnd,
    TopicUpdate,
    WatchedTopics,
)
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import (
    ClientCancelled,
    ClientDisconnected,
    DaemonMessageReceived,
    TopicChunkTaken,
)


def two_senders(outputs: int = 1, *, debug: bool = True) -> DataflowSpec:
    """`camera` on the robot and `plot` on the gpu."""
    spec = dataflow(camera="robot", plot="gpu")
    names = tuple(f"out{number}" for number in range(outputs))
    nodes = tuple(node.model_copy(update={"outputs": names}) for node in spec.resolved.nodes)
    resolved = spec.resolved.model_copy(update={"nodes": nodes, "debug_inspection": debug})
    return spec.model_copy(update={"resolved": resolved})


class Watched:
    """A fleet of two machines on which that dataflow runs."""

    def __init__(self, spec: DataflowSpec, settings: Settings | None = None) -> None:
        self.fleet = SimulatedFleet(settings or Settings())
        self.robot = self.fleet.add_daemon("robot", "robot")
        self.gpu = self.fleet.add_daemon("gpu", "gpu")
        self.fleet.quiet()
        self.fleet.start(spec)
        self.fleet.quiet()
        self.fleet.progress.clear()

    def asked(self, daemon: FakeDaemon) -> CoordinatorMessage | None:
        """What the daemon has been sent of the watch since the last look."""
        messages = [TO_DAEMON.decode(text) for text in daemon.from_coordinator]
        daemon.from_coordinator.clear()
        about = [m for m in messages if isinstance(m, StreamTopics | MoreTopics | EndTopics)]
        assert len(about) <= 1
        return about[0] if about else None

    def stream(self, daemon: FakeDaemon) -> StreamTopics:
        message = self.asked(daemon)
        assert isinstance(message, StreamTopics)
        return message

    def says(self, daemon: FakeDaemon, message: DaemonMessage) -> None:
        assert daemon.connection is not None
        self.fleet.happen(DaemonMessageReceived(daemon.connection, message))

    def notes(self) -> list[str]:
        told = [p for p in self.fleet.progress if isinstance(p, WatchedTopics)]
        self.fleet.progress.clear()
        return [note for one in told for note in one.news.notes]

    def refusal(self, request: WatchTopics) -> str:
        return self.fleet.failures[self.fleet.ask(request)].message


def test_each_daemon_is_asked_for_its_own_outputs_and_for_more_when_they_were_shown() -> None:
    world = Watched(two_senders(2))
    number = world.fleet.ask(WatchTopics(topics=("camera/out1", "plot/out0", "camera/out0")))
    robot, gpu = world.stream(world.robot), world.stream(world.gpu)
    assert robot.topics == ("camera/out1", "camera/out0")
    assert gpu.topics == ("plot/out0",)
    news = TopicUpdate(samples=("{}",), dropped={"camera/out1": 3})
    world.says(world.robot, TopicChunk(stream=robot.stream, news=news))
    assert world.fleet.progress == [WatchedTopics(daemon="robot", stream=robot.stream, news=news)]
    assert world.asked(world.robot) is None
    world.fleet.happen(TopicChunkTaken(1, number, robot.stream))
    assert world.asked(world.robot) == MoreTopics(stream=robot.stream)
    world.fleet.happen(TopicChunkTaken(1, number, 99))
    world.fleet.happen(TopicChunkTaken(2, number, gpu.stream))
    assert world.asked(world.gpu) is None


def test_what_a_daemon_remarks_moves_no_terminal() -> None:
    world = Watched(two_senders())
    world.fleet.ask(WatchTopics())
    chunk = TopicChunk(
        stream=world.stream(world.robot).stream, news=TopicUpdate(notes=("a\x1b[2Jb",))
    )
    world.says(world.robot, chunk)
    assert world.notes() == ["a\\x1b[2Jb"]


def test_without_names_all_outputs_are_watched() -> None:
    world = Watched(two_senders())
    world.fleet.ask(WatchTopics())
    assert world.stream(world.robot).topics == ("camera/out0",)
    assert world.stream(world.gpu).topics == ("plot/out0",)


def test_an_output_whose_machine_is_done_is_named_if_it_was_asked_for() -> None:
    world = Watched(two_senders())
    (runner,) = world.gpu.runners
    world.fleet.finish_runner(runner, world.gpu)
    world.fleet.quiet()
    world.fleet.progress.clear()
    world.fleet.ask(WatchTopics())
    assert world.notes() == []
    world.fleet.ask(WatchTopics(topics=("camera/out0", "plot/out0")))
    assert world.notes() == ["no more samples of plot/out0: its part has ended"]
    assert "the nodes of plot/out0 have ended" in world.refusal(WatchTopics(topics=("plot/out0",)))


def test_refusals_say_what_to_do() -> None:
    shut = Watched(two_senders(debug=False)).refusal(WatchTopics())
    assert "topic inspection requires debug mode" in shut
    assert "enable_debug_inspection: true" in shut
    assert "--debug" in shut
    world = Watched(two_senders())
    unknown = world.refusal(WatchTopics(topics=("camera/out9",)))
    assert 'no output "camera/out9"; did you mean camera/out0' in unknown
    assert "camera/out0, plot/out0" in unknown
    many = Watched(two_senders(40)).refusal(WatchTopics())
    assert "has 80 outputs; name those to watch, at most 64" in many
    bare = Watched(two_senders(0)).refusal(WatchTopics())
    assert "have no outputs" in bare


def test_so_many_watches_on_a_connection_and_no_more() -> None:
    world = Watched(two_senders(), Settings(streams_per_client=2))
    for _ in range(2):
        world.fleet.ask(WatchTopics())
    assert "at most 2 watches" in world.refusal(WatchTopics())


def test_where_messages_must_be_short_the_samples_are_short() -> None:
    world = Watched(two_senders(), Settings(max_message_bytes=8000))
    world.fleet.ask(WatchTopics())
    asked = world.stream(world.robot)
    assert (asked.chunk_bytes, asked.sample_bytes) == (1000, 500)


@pytest.mark.parametrize("how", ["cancelled", "gone"])
def test_a_client_that_goes_ends_its_watch(how: str) -> None:
    world = Watched(two_senders())
    number = world.fleet.ask(WatchTopics())
    stream = world.stream(world.robot).stream
    world.fleet.happen(ClientCancelled(1, number) if how == "cancelled" else ClientDisconnected(1))
    assert world.asked(world.robot) == EndTopics(stream=stream)
    world.says(world.robot, TopicChunk(stream=stream))
    assert world.asked(world.robot) == EndTopics(stream=stream)  # its last word was on its way
    world.says(world.robot, TopicChunk(stream=stream, done=True))
    assert world.asked(world.robot) is None
    assert number not in world.fleet.answers


def test_a_daemon_that_comes_back_is_asked_again() -> None:
    world = Watched(two_senders())
    world.fleet.ask(WatchTopics())
    world.fleet.disconnect(world.robot)
    assert world.notes() == ['the connection to daemon "robot" was lost']
    world.fleet.connect(world.robot)
    world.fleet.step_to_coordinator(world.robot)
    assert world.stream(world.robot).topics == ("camera/out0",)


def test_a_daemon_that_is_away_is_waited_for() -> None:
    world = Watched(two_senders())
    world.fleet.disconnect(world.robot)
    world.fleet.ask(WatchTopics(topics=("camera/out0",)))
    assert world.notes() == ['no connection to daemon "robot" at the moment']
    world.fleet.connect(world.robot)
    world.fleet.step_to_coordinator(world.robot)
    assert world.stream(world.robot).topics == ("camera/out0",)


def test_a_runner_that_was_killed_is_watched_again_once_it_has_a_successor() -> None:
    world = Watched(two_senders())
    number = world.fleet.ask(WatchTopics(topics=("camera/out0",)))
    world.fleet.quiet()
    (first,) = world.robot.watches
    world.says(world.robot, TopicChunk(stream=first.stream, done=True))
    world.fleet.quiet()
    assert len(world.robot.watches) == 1  # nothing was heard of another runner yet
    (runner,) = world.robot.runners
    world.fleet.kill_runner(runner, world.robot)
    world.fleet.quiet()
    _, second = world.robot.watches
    assert second.stream != first.stream
    assert second.topics == ("camera/out0",)
    assert number not in world.fleet.answers


def test_a_stream_that_cannot_be_is_not_tried_again() -> None:
    world = Watched(two_senders())
    number = world.fleet.ask(WatchTopics())
    robot, gpu = world.stream(world.robot), world.stream(world.gpu)
    world.says(world.robot, TopicChunk(stream=robot.stream, done=True, problem="it is\tfull"))
    assert world.asked(world.robot) is None
    assert number not in world.fleet.answers  # the other one goes on
    world.says(world.gpu, TopicChunk(stream=gpu.stream, done=True, problem="too"))
    problems = ('daemon "robot": it is\\x09full', 'daemon "gpu": too')
    assert world.fleet.answers[number] == TopicsEnd(problems=problems)


def test_the_end_of_the_dataflow_ends_the_watch() -> None:
    world = Watched(two_senders())
    number = world.fleet.ask(WatchTopics())
    streams = [(d, world.stream(d).stream) for d in (world.robot, world.gpu)]
    world.fleet.ask(StopDataflow())
    for daemon, stream in streams:
        world.says(daemon, TopicChunk(stream=stream, done=True))
    assert number not in world.fleet.answers
    world.fleet.quiet()
    assert world.fleet.answers[number] == TopicsEnd()
