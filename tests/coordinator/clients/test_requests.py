"""What clients are answered: stop, wait, restart, list, logs, clean, destroy."""

from __future__ import annotations

from support.fleet_simulation import FakeDaemon, SimulatedFleet, dataflow

from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DataflowList,
    DataflowRef,
    Destroy,
    Destroyed,
    Ended,
    ForgetEnded,
    ListNodes,
    LogLines,
    LogsEnd,
    NodeList,
    ReadLogs,
    RestartDataflow,
    Restarted,
    StopDataflow,
    WaitForEnd,
)
from dora_config.protocol.daemon import (
    TO_DAEMON,
    EndLogs,
    Heartbeat,
    LogChunk,
    Metrics,
    MoreLogs,
    StreamLogs,
)
from dora_config.protocol.dataflow import LogFilter
from dora_config.protocol.runner import NodeStatus
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import (
    ClientCancelled,
    ClientDisconnected,
    DaemonMessageReceived,
    LogLinesSent,
)


def running(*names: str) -> tuple[SimulatedFleet, FakeDaemon]:
    """A fleet of one unnamed daemon on which dataflows of these names run."""
    fleet = SimulatedFleet(Settings(archived_dataflows=2, streams_per_client=2))
    daemon = fleet.add_daemon()
    fleet.quiet()
    for name in names:
        fleet.start(dataflow(source=None, sink=None).model_copy(update={"name": name}))
        fleet.quiet()
    return fleet, daemon


def test_stop_is_answered_when_everything_has_ended() -> None:
    fleet, daemon = running("a")
    waiting = fleet.ask(WaitForEnd())
    stopping = fleet.ask(StopDataflow(dataflow=DataflowRef(name="a")))
    fleet.step_to_daemon(daemon)
    assert not {waiting, stopping} & set(fleet.answers)
    fleet.quiet()
    for number in (waiting, stopping):
        answer = fleet.answers[number]
        assert isinstance(answer, Ended)
        (ended,) = answer.dataflows
        assert (ended.name, ended.ok, len(ended.nodes)) == ("a", True, 2)


def test_stop_without_a_name_needs_exactly_one_running() -> None:
    fleet, _ = running()
    assert fleet.failures[fleet.ask(StopDataflow())].code == "nothing_runs"
    fleet, _ = running("a", "b")
    failure = fleet.failures[fleet.ask(StopDataflow())]
    assert failure.code == "ambiguous"
    assert '"a"' in failure.message
    assert '"b"' in failure.message


def test_stop_all_waits_for_all() -> None:
    fleet, _ = running("a", "b")
    number = fleet.ask(StopDataflow(all=True))
    fleet.quiet()
    answer = fleet.answers[number]
    assert isinstance(answer, Ended)
    assert {one.name for one in answer.dataflows} == {"a", "b"}


def test_an_archived_name_is_mentioned() -> None:
    fleet, _ = running("a")
    fleet.ask(StopDataflow())
    fleet.quiet()
    failure = fleet.failures[fleet.ask(StopDataflow(dataflow=DataflowRef(name="a")))]
    assert failure.message.startswith('no running dataflow with name "a"; archived')
    assert "(Finished)" in failure.message


def test_restart_stops_and_starts_the_same_again() -> None:
    fleet, daemon = running("a")
    (old,) = fleet.store
    number = fleet.ask(RestartDataflow(dataflow=DataflowRef(name="a")))
    fleet.quiet()
    answer = fleet.answers[number]
    assert isinstance(answer, Restarted)
    assert answer.old == old
    assert [len(daemon.living(one)) for one in (answer.old, answer.new)] == [0, 1]
    assert fleet.listed() == [("Finished", None), ("Running", None)]


def test_restart_that_finds_no_machine_any_more_says_that_it_was_stopped() -> None:
    fleet, daemon = running("a")
    number = fleet.ask(RestartDataflow(dataflow=DataflowRef(name="a")))
    fleet.step_to_daemon(daemon)
    fleet.step_runner(daemon.runners[0], daemon)
    fleet.step_news(daemon)
    fleet.step_to_coordinator(daemon)
    assert number not in fleet.failures  # the daemon is there: it starts again
    fleet.disconnect(daemon)
    fleet.quiet()
    assert "was lost while it prepared" in fleet.failures[number].message


def test_metrics_ride_on_heartbeats() -> None:
    fleet, daemon = running("a")
    (dataflow_id,) = fleet.store
    sampled = NodeStatus(
        node="source", state="Running", pid=7, cpu_percent=12.5, memory_bytes=1000, restarts=2
    )
    metrics = Metrics(dataflow_id=dataflow_id, nodes=(sampled,))
    assert daemon.connection is not None
    fleet.happen(DaemonMessageReceived(daemon.connection, Heartbeat(metrics=(metrics,))))
    nodes = fleet.answers[fleet.ask(ListNodes())]
    assert isinstance(nodes, NodeList)
    shown = {node.node: (node.status, node.pid, node.restarts) for node in nodes.nodes}
    assert shown == {"source": ("Running", 7, 2), "sink": ("Starting", None, 0)}
    cluster = fleet.answers[fleet.ask(ClusterStatus())]
    assert isinstance(cluster, ClusterReport)
    assert [(one.restarts, one.connected) for one in cluster.daemons] == [(2, True)]
    assert cluster.active_dataflows == 1
    fleet.disconnect(daemon)
    nodes = fleet.answers[fleet.ask(ListNodes())]
    assert isinstance(nodes, NodeList)
    assert {node.status for node in nodes.nodes} == {"Unknown"}


def test_archived_dataflows_are_bounded_and_can_be_forgotten() -> None:
    fleet, _ = running("a", "b", "c")
    fleet.ask(StopDataflow(all=True))
    fleet.quiet()
    assert len(fleet.listed()) == 2
    assert len(fleet.store) == 2
    answer = fleet.answers[fleet.ask(ForgetEnded())]
    assert isinstance(answer, DataflowList)
    assert len(answer.dataflows) == 2
    assert fleet.listed() == []
    assert not fleet.store


def test_destroy_is_refused_while_dataflows_run() -> None:
    fleet, _ = running("a")
    failure = fleet.failures[fleet.ask(Destroy())]
    assert failure.code == "conflict"
    assert '"a"' in failure.message
    assert not fleet.ended


def test_destroy_ends_dataflows_then_daemons_then_the_coordinator() -> None:
    fleet, daemon = running("a")
    number = fleet.ask(Destroy(force=True))
    assert fleet.failures.get(fleet.start(dataflow(late=None)))
    fleet.quiet()
    answer = fleet.answers[number]
    assert isinstance(answer, Destroyed)
    assert answer.left == ()
    assert daemon.agent is None
    assert not any(runner.lives for runner in daemon.runners)
    assert fleet.ended
    (record, _), *_ = fleet.store.values()
    assert record.phase.has_ended


def test_destroy_does_not_wait_for_ever() -> None:
    fleet, daemon = running("a")
    fleet.disconnect(daemon)
    number = fleet.ask(Destroy(force=True))
    fleet.now += fleet.settings.destroy_timeout
    fleet.fire_due()
    answer = fleet.answers[number]
    assert isinstance(answer, Destroyed)
    assert answer.left == (daemon.key,)
    assert fleet.ended


# ------------------------------------------------------------------------------- logs


def _stream(daemon: FakeDaemon) -> StreamLogs:
    (text,) = daemon.from_coordinator
    daemon.from_coordinator.clear()
    message = TO_DAEMON.decode(text)
    assert isinstance(message, StreamLogs)
    return message


def _chunk(fleet: SimulatedFleet, daemon: FakeDaemon, chunk: LogChunk) -> None:
    assert daemon.connection is not None
    fleet.happen(DaemonMessageReceived(daemon.connection, chunk))


def test_logs_are_pulled_piece_by_piece() -> None:
    fleet, daemon = running("a")
    number = fleet.ask(ReadLogs(nodes=("sink",), filter=LogFilter(tail=2)))
    asked = _stream(daemon)
    assert (asked.nodes, asked.filter.tail) == (("sink",), 2)
    fleet.progress.clear()
    _chunk(fleet, daemon, LogChunk(stream=asked.stream, lines=("x", "y")))
    (lines,) = fleet.progress
    assert lines == LogLines(daemon=daemon.key, stream=asked.stream, lines=("x", "y"))
    assert not daemon.from_coordinator  # nothing more is asked for before the client took it
    fleet.happen(LogLinesSent(asked.stream))
    assert TO_DAEMON.decode(daemon.from_coordinator[0]) == MoreLogs(stream=asked.stream)
    _chunk(fleet, daemon, LogChunk(stream=asked.stream, done=True))
    assert fleet.answers[number] == LogsEnd()


def test_logs_of_an_unknown_node_name_the_known_ones() -> None:
    fleet, _ = running("a")
    failure = fleet.failures[fleet.ask(ReadLogs(nodes=("nobody",)))]
    assert 'has no node "nobody"; its nodes are: sink, source' in failure.message


def test_logs_of_a_machine_that_is_away_say_so() -> None:
    fleet, daemon = running("a")
    number = fleet.ask(ReadLogs(follow=True))
    fleet.disconnect(daemon)
    problem = f'the connection to daemon "{daemon.key}" was lost'
    assert fleet.answers[number] == LogsEnd(problems=(problem,))
    number = fleet.ask(ReadLogs())
    answer = fleet.answers[number]
    assert answer == LogsEnd(problems=(f'no connection to daemon "{daemon.key}"',))


def test_a_client_that_goes_ends_its_streams() -> None:
    fleet, daemon = running("a")
    fleet.ask(ReadLogs(follow=True))
    first = _stream(daemon).stream
    number = fleet.ask(ReadLogs(follow=True))
    second = _stream(daemon).stream
    assert "at most 2 log streams" in fleet.failures[fleet.ask(ReadLogs())].message
    fleet.happen(ClientCancelled(1, number))
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndLogs(stream=second)
    fleet.happen(ClientDisconnected(1))
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndLogs(stream=first)
    late = LogChunk(stream=first, lines=("late",))
    _chunk(fleet, daemon, late)
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndLogs(stream=first)
