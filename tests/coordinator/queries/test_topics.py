"""Streams of watched outputs to clients, also after faults."""

from __future__ import annotations

from typing import Any

import pytest
from support.simulation.fleets import SimulatedFleet, dataflow
from support.simulation.machines import SimulatedDaemon

from dora_config.dataflow.resolved import ResolvedDeploy
from dora_config.protocol.control import ChangeGraph, StopDataflow, WatchTopics
from dora_config.protocol.daemon import (
    TO_DAEMON,
    CoordinatorMessage,
    DaemonMessage,
    EndStream,
    Heartbeat,
    ReadOn,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import AddNode
from dora_config.protocol.topics import (
    StreamTopics,
    TopicChunk,
    TopicsEnd,
    TopicUpdate,
    WatchedTopics,
)
from dora_coordinator.queries.topics import LATE_SECONDS
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import (
    DaemonMessageReceived,
)


def two_senders(outputs: int = 1, *, debug: bool = True) -> DataflowSpec:
    """Return a specification with `camera` on "robot" and `plot` on "gpu"."""
    spec = dataflow(camera="robot", plot="gpu")
    names = tuple(f"out{number}" for number in range(outputs))
    nodes = tuple(node.model_copy(update={"outputs": names}) for node in spec.resolved.nodes)
    resolved = spec.resolved.model_copy(update={"nodes": nodes, "debug_inspection": debug})
    return spec.model_copy(update={"resolved": resolved})


class Watched:
    """A fleet of two machines on which a dataflow runs."""

    def __init__(self, spec: DataflowSpec, settings: Settings | None = None) -> None:
        self.fleet = SimulatedFleet(settings or Settings())
        self.robot = self.fleet.add_daemon("robot", "robot")
        self.gpu = self.fleet.add_daemon("gpu", "gpu")
        self.fleet.settle()
        self.fleet.start(spec)
        self.fleet.settle()
        self.fleet.progress.clear()
        self.fleet.progress_of.clear()

    def received(self, daemon: SimulatedDaemon) -> CoordinatorMessage | None:
        """Return and remove the message about the watch to the daemon."""
        messages = [TO_DAEMON.decode(text) for text in daemon.from_coordinator]
        daemon.from_coordinator.clear()
        about = [m for m in messages if isinstance(m, StreamTopics | ReadOn | EndStream)]
        assert len(about) <= 1
        return about[0] if about else None

    def stream(self, daemon: SimulatedDaemon) -> StreamTopics:
        message = self.received(daemon)
        assert isinstance(message, StreamTopics)
        return message

    def send(self, daemon: SimulatedDaemon, message: DaemonMessage) -> None:
        assert daemon.connection is not None
        self.fleet.handle(DaemonMessageReceived(daemon.connection, message))

    def notes(self) -> list[str]:
        updates = [p for p in self.fleet.progress if isinstance(p, WatchedTopics)]
        self.fleet.progress.clear()
        return [note for one in updates for note in one.update.notes]

    def refusal(self, request: WatchTopics) -> str:
        return self.fleet.failures[self.fleet.request(request)].message


def test_each_daemon_streams_its_own_outputs_chunk_by_chunk() -> None:
    world = Watched(two_senders(2))
    number = world.fleet.request(WatchTopics(topics=("camera/out1", "plot/out0", "camera/out0")))
    robot, gpu = world.stream(world.robot), world.stream(world.gpu)
    assert robot.topics == ("camera/out1", "camera/out0")
    assert gpu.topics == ("plot/out0",)
    news = TopicUpdate(samples=("{}",), dropped={"camera/out1": 3})
    world.send(world.robot, TopicChunk(stream=robot.stream, update=news))
    assert world.fleet.progress == [WatchedTopics(daemon="robot", stream=robot.stream, update=news)]
    assert world.received(world.robot) is None
    world.fleet.displayed(number, robot.stream)
    assert world.received(world.robot) == ReadOn(stream=robot.stream)
    world.fleet.displayed(number, 99)
    assert world.received(world.gpu) is None


def test_notes_of_a_daemon_contain_no_control_characters() -> None:
    world = Watched(two_senders())
    world.fleet.request(WatchTopics())
    chunk = TopicChunk(
        stream=world.stream(world.robot).stream, update=TopicUpdate(notes=("a\x1b[2Jb",))
    )
    world.send(world.robot, chunk)
    assert world.notes() == ["a\\x1b[2Jb"]


def test_without_names_all_outputs_are_watched() -> None:
    world = Watched(two_senders())
    world.fleet.request(WatchTopics())
    assert world.stream(world.robot).topics == ("camera/out0",)
    assert world.stream(world.gpu).topics == ("plot/out0",)


def test_a_requested_output_whose_part_has_ended_is_named() -> None:
    world = Watched(two_senders())
    (runner,) = world.gpu.runners
    world.fleet.finish_runner(runner, world.gpu)
    world.fleet.settle()
    world.fleet.progress.clear()
    world.fleet.request(WatchTopics())
    assert world.notes() == []
    world.fleet.request(WatchTopics(topics=("camera/out0", "plot/out0")))
    assert world.notes() == ["no more samples of plot/out0: its part has ended"]
    assert "the nodes of plot/out0 have ended" in world.refusal(WatchTopics(topics=("plot/out0",)))


def test_refusals_contain_the_remedy() -> None:
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


def test_samples_fit_the_message_limit() -> None:
    world = Watched(two_senders(), Settings(max_message_bytes=8000))
    world.fleet.request(WatchTopics())
    request = world.stream(world.robot)
    assert (request.chunk_bytes, request.sample_bytes) == (1000, 500)


def test_pictures_fit_the_message_limit_unless_they_are_sent_in_pieces() -> None:
    world = Watched(two_senders(), Settings(max_message_bytes=8000))
    world.fleet.request(WatchTopics(picture_bytes=200_000, whole_picture_bytes=10_000_000))
    request = world.stream(world.robot)
    assert (request.picture_bytes, request.whole_picture_bytes) == (500, 10_000_000)


def test_a_client_that_leaves_ends_its_watch() -> None:
    world = Watched(two_senders())
    number = world.fleet.request(WatchTopics())
    stream = world.stream(world.robot).stream
    world.fleet.leave(number)
    assert world.received(world.robot) == EndStream(stream=stream)
    world.send(world.robot, TopicChunk(stream=stream))
    assert world.received(world.robot) == EndStream(
        stream=stream
    )  # the chunk was sent before the end arrived
    world.send(world.robot, TopicChunk(stream=stream, done=True))
    assert world.received(world.robot) is None
    assert number not in world.fleet.answers


def test_a_daemon_that_returns_is_watched_again() -> None:
    world = Watched(two_senders())
    world.fleet.request(WatchTopics())
    world.fleet.disconnect(world.robot)
    assert world.notes() == ['the connection to daemon "robot" was lost']
    world.fleet.connect(world.robot)
    world.fleet.step_to_coordinator(world.robot)
    assert world.stream(world.robot).topics == ("camera/out0",)


def test_a_disconnected_daemon_is_watched_when_it_returns() -> None:
    world = Watched(two_senders())
    world.fleet.disconnect(world.robot)
    world.fleet.request(WatchTopics(topics=("camera/out0",)))
    assert world.notes() == ['no connection to daemon "robot" at the moment']
    world.fleet.connect(world.robot)
    world.fleet.step_to_coordinator(world.robot)
    assert world.stream(world.robot).topics == ("camera/out0",)


def test_the_successor_of_a_killed_runner_is_watched() -> None:
    world = Watched(two_senders())
    number = world.fleet.request(WatchTopics(topics=("camera/out0",)))
    world.fleet.settle()
    (first,) = world.robot.watches
    world.send(world.robot, TopicChunk(stream=first.stream, done=True))
    world.fleet.settle()
    assert len(world.robot.watches) == 1  # the part has no new runner yet
    (runner,) = world.robot.runners
    world.fleet.kill_runner(runner, world.robot)
    world.fleet.settle()
    _, second = world.robot.watches
    assert second.stream != first.stream
    assert second.topics == ("camera/out0",)
    assert number not in world.fleet.answers


def test_a_stream_with_a_problem_is_not_reopened() -> None:
    world = Watched(two_senders())
    number = world.fleet.request(WatchTopics())
    robot, gpu = world.stream(world.robot), world.stream(world.gpu)
    world.send(world.robot, TopicChunk(stream=robot.stream, done=True, problem="it is\tfull"))
    assert world.received(world.robot) is None
    assert number not in world.fleet.answers  # the other stream continues
    world.send(world.gpu, TopicChunk(stream=gpu.stream, done=True, problem="too"))
    problems = ('daemon "robot": it is\\tfull', 'daemon "gpu": too')
    assert world.fleet.answers[number] == TopicsEnd(problems=problems)


def test_the_end_of_the_dataflow_ends_the_watch() -> None:
    world = Watched(two_senders())
    number = world.fleet.request(WatchTopics())
    streams = [(d, world.stream(d).stream) for d in (world.robot, world.gpu)]
    world.fleet.request(StopDataflow())
    for daemon, stream in streams:
        world.send(daemon, TopicChunk(stream=stream, done=True))
    assert number not in world.fleet.answers
    world.fleet.settle()
    assert world.fleet.answers[number] == TopicsEnd()


@pytest.mark.parametrize("topics", [(), ("late/out0",)], ids=["all", "one"])
def test_a_watched_part_that_could_not_be_added_ends_its_watch_only(topics: tuple[str]) -> None:
    world = Watched(two_senders())
    fleet = world.fleet
    arm = fleet.add_daemon("arm", "arm")
    fleet.settle()
    arm.broken_nodes.add("late")
    (node, _) = two_senders().resolved.nodes
    deploy = ResolvedDeploy(machine="arm")
    late = node.model_copy(update={"id": "late", "deploy": deploy})
    adding = fleet.request(ChangeGraph(change=AddNode(node=late)))
    number = fleet.request(WatchTopics(topics=topics))
    fleet.settle()
    assert adding in fleet.failures
    fleet.listed()  # the coordinator handles further events
    assert (number in fleet.answers) == bool(topics)


def test_a_stream_ends_after_its_part_could_not_be_added() -> None:
    world = Watched(two_senders())
    fleet = world.fleet
    number = fleet.request(WatchTopics(topics=("camera/out0",)))
    stream = world.stream(world.robot)
    assert fleet.coordinator is not None
    (running,) = fleet.coordinator.registry
    running.parts.remove(running.parts["robot"])
    world.send(world.robot, TopicChunk(stream=stream.stream, done=True))
    assert fleet.answers[number] == TopicsEnd()


def test_a_watch_ends_with_a_dataflow_of_which_a_part_was_adopted_later() -> None:
    world = Watched(two_senders())
    fleet = world.fleet
    fleet.lose_store()
    fleet.connect(world.robot)
    fleet.settle()
    number = fleet.request(WatchTopics())
    stream = world.stream(world.robot).stream
    fleet.connect(world.gpu)
    fleet.settle()
    fleet.request(StopDataflow())
    world.send(world.robot, TopicChunk(stream=stream, done=True))
    (followed,) = world.gpu.watches  # its part was known from the other machine
    world.send(world.gpu, TopicChunk(stream=followed.stream, done=True))
    fleet.settle()
    assert fleet.answers[number] == TopicsEnd()


VIEW = WatchTopics(topics=("camera/out0",), max_rate=5.0)


class Shared(Watched):
    """Two equal watches of one output, over one stream."""

    def __init__(self) -> None:
        super().__init__(two_senders())
        self.first = self.fleet.request(VIEW)
        self.request = self.stream(self.robot)
        self.second = self.fleet.request(VIEW)
        assert self.received(self.robot) is None

    def update(self, **news: Any) -> dict[int, TopicUpdate]:
        """Send an update; return what each watch receives."""
        self.send(self.robot, TopicChunk(stream=self.request.stream, update=TopicUpdate(**news)))
        return self.arrived()

    def arrived(self) -> dict[int, TopicUpdate]:
        """Return and remove the update that each watch has received, at most one."""
        found: dict[int, TopicUpdate] = {}
        for number, progress in self.fleet.progress_of.items():
            (only,) = progress
            assert isinstance(only, WatchedTopics)
            found[number] = only.update
        self.fleet.progress_of.clear()
        return found

    def display(self, number: int) -> bool:
        """Acknowledge for a watch; return whether the daemon may send the next update."""
        self.fleet.displayed(number, self.request.stream)
        return self.received(self.robot) == ReadOn(stream=self.request.stream)


def test_equal_watches_cost_the_robot_one_stream() -> None:
    world = Shared()
    news = TopicUpdate(samples=("1",), dropped={"camera/out0": 2})
    assert world.update(**news.model_dump()) == {world.first: news, world.second: news}
    assert world.display(world.first)
    assert not world.display(world.second)  # was requested already
    assert world.update(samples=("2",)).keys() == {world.first, world.second}


def test_a_slow_viewer_of_a_shared_stream_misses_messages_alone() -> None:
    world = Shared()
    world.update(samples=("1",))
    assert world.display(world.first)
    missed = world.update(samples=("2",), dropped={"camera/out0": 4}, notes=("a note",))
    assert missed.keys() == {world.first}
    assert world.display(world.second)
    assert world.update(samples=("3",), dropped={"camera/out0": 1}) == {
        world.second: TopicUpdate(samples=("3",), dropped={"camera/out0": 6}, notes=("a note",))
    }


def test_a_viewer_that_comes_later_receives_the_notes() -> None:
    world = Shared()
    world.update(samples=("1",), notes=("reduced",))
    third = world.fleet.request(VIEW)
    assert world.arrived() == {third: TopicUpdate(notes=("reduced",))}
    assert world.display(third)
    assert world.update(samples=("2",)) == {third: TopicUpdate(samples=("2",))}


def test_a_message_in_pieces_waits_for_its_readers_only() -> None:
    world = Shared()
    world.update(piece="a", more=True)
    third = world.fleet.request(VIEW)
    assert world.arrived().keys() == {third}
    assert not world.display(third)
    assert not world.display(world.first)
    assert world.display(world.second)
    assert world.update(piece="b").keys() == {world.first, world.second}
    assert world.received(world.robot) == ReadOn(stream=world.request.stream)
    assert world.update(samples=("c",))[third].dropped == {"camera/out0": 1}


def test_a_viewer_that_leaves_in_the_middle_of_a_message_does_not_stop_the_others() -> None:
    world = Shared()
    world.update(piece="a", more=True)
    assert not world.display(world.first)
    world.fleet.leave(world.second)
    assert world.received(world.robot) == ReadOn(stream=world.request.stream)
    world.fleet.leave(world.first)
    assert world.received(world.robot) == EndStream(stream=world.request.stream)


def test_a_viewer_that_stopped_delays_a_long_message_only_for_a_while() -> None:
    world = Shared()
    world.update(piece="a", more=True)
    assert not world.display(world.first)
    world.fleet.now += LATE_SECONDS - 1
    world.fleet.fire_due()
    assert world.received(world.robot) is None
    world.fleet.now += 1
    world.fleet.fire_due()
    assert world.received(world.robot) == ReadOn(stream=world.request.stream)
    assert world.update(piece="b").keys() == {world.first}
    assert world.display(world.first)
    assert world.update(samples=("c",)).keys() == {world.first}
    assert not world.display(world.second)  # the next update was requested for the first one
    (end,) = world.arrived().values()
    assert (end.piece, end.more, end.dropped) == (" ", False, {"camera/out0": 1})
    world.fleet.displayed(world.second, world.request.stream)
    assert world.update(samples=("d",))[world.second] == TopicUpdate(samples=("d",))


def test_a_viewer_that_returns_in_the_middle_of_a_message_misses_its_rest() -> None:
    world = Shared()
    world.update(piece="a", more=True)
    world.display(world.first)
    world.fleet.now += LATE_SECONDS
    world.fleet.fire_due()
    world.received(world.robot)
    world.display(world.second)
    assert world.arrived() == {world.second: TopicUpdate(piece=" ")}
    world.display(world.second)
    assert world.update(piece="b").keys() == {world.first}
    assert world.received(world.robot) == ReadOn(stream=world.request.stream)
    assert world.update(piece="c", more=True)[world.second] == TopicUpdate(piece="c", more=True)


def test_a_message_waits_for_its_only_viewer_until_a_second_one_comes() -> None:
    world = Watched(two_senders())
    world.fleet.request(VIEW)
    stream = world.stream(world.robot).stream
    piece = TopicUpdate(piece="a", more=True)
    world.send(world.robot, TopicChunk(stream=stream, update=piece))
    world.fleet.now += LATE_SECONDS
    world.fleet.fire_due()
    assert world.received(world.robot) is None
    world.fleet.request(VIEW)
    world.fleet.now += LATE_SECONDS
    world.fleet.fire_due()
    assert world.received(world.robot) == ReadOn(stream=stream)
    world.fleet.leave()
    assert world.received(world.robot) == EndStream(stream=stream)


def test_watches_of_a_lost_machine_share_a_stream_again() -> None:
    world = Shared()
    world.fleet.disconnect(world.robot)
    world.fleet.connect(world.robot)
    world.fleet.step_to_coordinator(world.robot)
    world.request = world.stream(world.robot)
    world.fleet.progress_of.clear()
    assert world.update(samples=("1",)).keys() == {world.first, world.second}


@pytest.mark.parametrize(
    "other",
    [
        VIEW.model_copy(update={"max_rate": 6.0}),
        VIEW.model_copy(update={"max_rate": None}),
        VIEW.model_copy(update={"sample_bytes": 1000}),
        WatchTopics(topics=("camera/out0",), rates=True, max_rate=5.0),
    ],
    ids=["rate", "unlimited", "size", "intervals"],
)
def test_other_watches_have_their_own_stream(other: WatchTopics) -> None:
    world = Shared()
    world.fleet.request(other)
    own = world.stream(world.robot)
    world.fleet.request(other)
    shared = other.max_rate is not None and not other.rates
    assert (world.received(world.robot) is None) == shared
    assert own.stream != world.request.stream


def test_a_watch_waits_for_a_connection_that_has_just_ended_or_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(two_senders())
    with monkeypatch.context() as patch:
        patch.setattr(watched.fleet._calls, "send", lambda daemon, message: False)
        watched.fleet.request(WatchTopics(topics=("camera/out0",)))
    assert watched.notes() == []
    watched.send(watched.robot, Heartbeat())
    assert watched.stream(watched.robot).topics == ("camera/out0",)
