"""Decisions of the agent that a whole fleet rarely provokes."""

from __future__ import annotations

import pytest
from support.simulation.fleets import dataflow

from dora_config.protocol.calls import LinkPart, PartLinks
from dora_config.protocol.daemon import (
    ConnectPart,
    DaemonLeaving,
    DescribePart,
    EndDaemon,
    ForgetPart,
    PartChanged,
    PartDescribed,
    PartLost,
    PartReport,
    PreparePart,
    ReleasePart,
    StopPart,
    StreamLogs,
)
from dora_config.protocol.links import (
    LinkReport,
    PeerEndpoint,
    PeerReport,
    RemoteEdge,
    SetLinkPeers,
)
from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.runner import (
    AcknowledgeResult,
    CurrentNode,
    DataflowResult,
    NodeDefinitions,
    Release,
    RunnerState,
    ShutDown,
    StopAllNodes,
)
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.agent.commands import (
    AdoptRunner,
    Command,
    Connect,
    DropPart,
    ExitDaemon,
    ReadNodes,
    SavePart,
    SendToCoordinator,
    SendToRunner,
    SetRunnerLinks,
    SignalRunner,
    StartRecorders,
    StartRunner,
    WriteLog,
)
from dora_daemon.agent.departure import SHUTDOWN_GRACE
from dora_daemon.agent.events import (
    DaemonStarted,
    Event,
    HandoverRequested,
    MachineStopping,
    NodeNotAdded,
    NodesRead,
    RecorderSettled,
    RecordingRequested,
    RunFound,
    RunnerChanged,
    RunnerEnded,
    RunnerPlaced,
)
from dora_daemon.agent.parts import table
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.state import AgentState

SPEC = dataflow(camera="robot")
ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"


def prepare(attempt: int = 1) -> PreparePart:
    return PreparePart(dataflow_id=ID, attempt=attempt, spec=SPEC)


def prepare_linked() -> PreparePart:
    """Return a part with an edge to another machine."""
    edge = RemoteEdge(
        source="camera",
        output="image",
        target="viewer",
        input="image",
        source_machine="robot",
        target_machine="base",
    )
    return prepare().model_copy(update={"links": PartLinks(edges=(edge,))})


def placed() -> RunnerPlaced:
    return RunnerPlaced(ID, "run/0", "token", {"camera": "out"})


def connected(phase: str = "starting", **facts: object) -> RunnerChanged:
    """Return a state of the runner, with which it connects unless it has."""
    return RunnerChanged(ID, RunnerState.model_validate({"phase": phase, **facts}))


def finished() -> RunnerChanged:
    return connected("finished", result=DataflowResult(dataflow_id=ID))


def after(state: AgentState, *events: Event) -> list[Command]:
    """Commands of the last event."""
    commands: list[Command] = []
    for event in events:
        commands = state.handle(event, 1.0)
    return commands


def record_of(state: AgentState) -> PartRecord:
    (record,) = state.parts.records()
    return record


def requests(commands: list[Command]) -> list[object]:
    return [command.request for command in commands if isinstance(command, SendToRunner)]


def messages(commands: list[Command]) -> list[object]:
    return [command.message for command in commands if isinstance(command, SendToCoordinator)]


def test_part_is_saved_before_its_runner_starts() -> None:
    commands = after(AgentState(), prepare())
    assert [type(command) for command in commands] == [SavePart, StartRunner]


def test_repeated_preparation_starts_one_runner() -> None:
    commands = after(AgentState(), prepare(), prepare())
    assert not any(isinstance(command, StartRunner) for command in commands)
    (message,) = messages(commands)
    assert isinstance(message, PartChanged)
    assert message.report.phase == "preparing"


def test_new_attempt_waits_for_the_end_of_the_old_one() -> None:
    state = AgentState()
    commands = after(state, prepare(), placed(), connected(), prepare(2))
    assert commands == [SignalRunner(ID)]
    commands = after(state, RunnerEnded(ID, "killed"))
    assert [type(command) for command in commands] == [SavePart, StartRunner]
    assert messages(commands) == []
    assert record_of(state).attempt == 2


def test_stop_is_sent_when_the_runner_connects() -> None:
    state = AgentState()
    commands = after(state, prepare(), placed(), StopPart(dataflow_id=ID))
    assert requests(commands) == []
    assert requests(after(state, connected("ready"))) == [StopAllNodes()]


def test_forced_stop_kills_a_runner_that_does_not_answer() -> None:
    forced = StopPart(dataflow_id=ID, force=True)
    assert SignalRunner(ID) in after(AgentState(), prepare(), placed(), forced)


def test_stop_survives_a_restart_of_the_daemon() -> None:
    record = PartRecord(dataflow_id=ID, attempt=1, spec=SPEC, phase="running", stopping=True)
    state = AgentState([record])
    (report,) = state.parts.reports()
    assert report.phase == "stopping"
    assert requests(after(state, connected("running"))) == [StopAllNodes()]


def test_the_log_of_a_node_that_was_not_added_is_remembered() -> None:
    state = AgentState()
    after(state, prepare(2), placed(), connected())
    assert after(state, NodeNotAdded(ID, 1, "extra", "out")) == []
    (saved,) = after(state, NodeNotAdded(ID, 2, "extra", "out"))
    assert isinstance(saved, SavePart)
    assert record_of(state).log_dirs == {"camera": "out", "extra": "out"}


def test_release_of_another_attempt_is_ignored() -> None:
    state = AgentState()
    after(state, prepare(2), placed(), connected(), connected("ready"))
    assert after(state, ReleasePart(dataflow_id=ID, attempt=1)) == []
    right = ReleasePart(dataflow_id=ID, attempt=2)
    assert requests(after(state, right)) == [Release()]
    after(state, connected("running"))
    again = after(state, right)
    assert requests(again) == []
    (message,) = messages(again)
    assert isinstance(message, PartChanged)
    assert message.report.phase == "running"


def test_result_is_saved_before_it_is_acknowledged_and_reported() -> None:
    state = AgentState()
    started = connected("running")
    commands = after(state, prepare(), placed(), connected(), started, finished())
    assert [type(command) for command in commands] == [SavePart, SendToRunner, SendToCoordinator]
    assert requests(commands) == [AcknowledgeResult()]
    assert state.parts.reports()[0].result == DataflowResult(dataflow_id=ID)
    assert after(state, finished()) == []
    after(state, ForgetPart(dataflow_id=ID, attempt=1))
    assert state.parts.reports() == ()
    assert record_of(state).log_dirs == {"camera": "out"}


def test_a_part_that_fails_right_after_its_release_has_ended() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected(), connected("ready"))
    failed = DataflowResult(dataflow_id=ID, error="exited with code 3")
    commands = after(state, connected("finished", result=failed))
    assert [report.phase for report in reports(commands)] == ["ended"]


def test_only_the_newest_ended_records_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the daemon runs, which may be for years."""
    monkeypatch.setattr(table, "KEPT_ENDED", 2)

    def ended(number: int, **changed: object) -> PartRecord:
        record = PartRecord(
            dataflow_id=f"{number}" if number else ID,
            attempt=1,
            spec=SPEC,
            phase="ended",
            ended_at=float(number),
            log_dirs={"camera": "out"},
        )
        return record.model_copy(update=changed)

    unstored = ended(0)  # its result is not stored by the coordinator
    state = AgentState([unstored, *(ended(one, forgotten=True) for one in (4, 1, 3, 2))])
    commands = after(state, DaemonStarted())
    assert commands[:2] == [DropPart("1"), DropPart("2")]
    assert after(state, ForgetPart(dataflow_id=ID, attempt=1))[1:] == [DropPart(ID)]
    assert {record.dataflow_id for record in state.parts.records()} == {"3", "4"}


def test_success_of_a_part_is_its_end_even_if_the_release_was_not_noted() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected())
    commands = after(state, connected("finished", result=DataflowResult(dataflow_id=ID)))
    (report,) = [one.report for one in messages(commands) if isinstance(one, PartChanged)]
    assert (report.phase, record_of(state).phase) == ("ended", "ended")


def test_requests_about_unknown_parts_are_answered() -> None:
    state = AgentState()
    (lost,) = messages(after(state, StopPart(dataflow_id=ID)))
    assert isinstance(lost, PartLost)
    assert after(state, DescribePart(dataflow_id=ID)) == []
    chunk = state.parts.read(StreamLogs(stream=1, dataflow_id=ID))
    assert "no longer has logs" in str(chunk)
    assert after(state, finished(), RunnerEnded(ID, "x"), connected()) == []


def test_part_is_described() -> None:
    state = AgentState()
    message, _ = messages(after(state, prepare(3), DescribePart(dataflow_id=ID)))
    assert message == PartDescribed(dataflow_id=ID, attempt=3, spec=SPEC)


def test_first_end_stops_dataflows_and_second_one_forces_it() -> None:
    state = AgentState()
    commands = after(state, prepare(), placed(), connected(), EndDaemon())
    (stop,) = requests(commands)
    assert isinstance(stop, StopAllNodes)
    assert not stop.force
    (kill,) = requests(after(state, EndDaemon()))
    assert isinstance(kill, StopAllNodes)
    assert kill.force
    commands = after(state, finished())
    assert messages(commands)[-1] == DaemonLeaving(hand_over=False)
    assert commands[-1] == ExitDaemon()
    (lost,) = messages(after(state, prepare(9), prepare(9)))
    assert isinstance(lost, PartLost)


def test_idle_daemon_ends_at_once() -> None:
    assert after(AgentState(), EndDaemon())[-1] == ExitDaemon()


def test_handover_stops_no_runner() -> None:
    commands = after(AgentState(), prepare(), placed(), connected(), HandoverRequested())
    assert requests(commands) == []
    assert messages(commands) == [DaemonLeaving(hand_over=True)]
    assert commands[-1] == ExitDaemon()


def test_machine_stop_ends_runners_without_changing_records() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected("running"))
    record = record_of(state)
    (shut_down,) = state.handle(MachineStopping(), 0.0)
    assert shut_down == SendToRunner(ID, ShutDown(grace=SHUTDOWN_GRACE))
    assert state.handle(finished(), 0.0) == []
    gone = state.handle(RunnerEnded(ID, "ended"), 0.0)
    assert gone == [SendToCoordinator(DaemonLeaving(hand_over=True)), ExitDaemon()]
    assert record_of(state) == record


def test_machine_stop_without_parts_ends_the_daemon_at_once() -> None:
    assert AgentState().handle(MachineStopping(), 0.0)[-1] == ExitDaemon()


def test_signal_during_a_machine_stop_kills_runners() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected("running"), MachineStopping())
    assert state.handle(EndDaemon(), 0.0) == [SignalRunner(ID)]
    (lost,) = messages(state.handle(prepare(2), 0.0))
    assert isinstance(lost, PartLost)


def linked(state: str, rtt: int) -> LinkReport:
    peer = PeerReport.model_validate({"machine": "base", "state": state, "rtt_us": rtt})
    return LinkReport(run_id="r", endpoints=("10.0.0.7:7450",), peers=(peer,))


def test_new_state_of_a_link_is_reported_and_round_trips_are_not() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected())
    reports = [linked("connecting", 0), linked("connected", 300), linked("connected", 400)]
    counts = [
        len(messages(state.handle(connected(link=report.without_figures()), 0.0)))
        for report in reports
    ]
    assert counts == [1, 1, 0]
    (report,) = state.parts.reports()
    assert report.link == reports[-1].without_figures()


def test_peers_are_sent_when_the_runner_connects() -> None:
    first = PeerEndpoint(machine="base", run_id="1", endpoints=("base:1",))
    moved = PeerEndpoint(machine="base", run_id="2", endpoints=("base:2",))
    other = PeerEndpoint(machine="arm", run_id="1", endpoints=("arm:1",))
    state = AgentState()
    after(
        state,
        prepare_linked(),
        ConnectPart(dataflow_id=ID, attempt=1, peers=(first, other)),
        ConnectPart(dataflow_id=ID, attempt=1, peers=(moved,), ended=("x",)),
        ConnectPart(dataflow_id=ID, attempt=2, peers=(first,)),
        placed(),
    )
    expected = SetLinkPeers(peers=(moved, other), ended=("x",))
    assert SendToRunner(ID, expected) in state.handle(connected(), 0.0)
    later = ConnectPart(dataflow_id=ID, attempt=1, peers=(first,))
    saved, sent = state.handle(later, 0.0)
    assert isinstance(saved, SavePart)
    assert sent == SendToRunner(ID, SetLinkPeers(peers=(first,)))


def test_a_part_without_links_keeps_the_peers_for_later() -> None:
    """An older store may send them before the links."""
    state = AgentState()
    base = PeerEndpoint(machine="base", run_id="1", endpoints=("base:1",))
    after(state, prepare(), placed(), connected())
    (saved,) = state.handle(ConnectPart(dataflow_id=ID, attempt=1, peers=(base,)), 0.0)
    assert isinstance(saved, SavePart)
    assert saved.record.peers == (base,)


def test_later_news_of_a_machine_replaces_earlier_ones() -> None:
    base = PeerEndpoint(machine="base", run_id="1", endpoints=("base:1",))
    arm = PeerEndpoint(machine="arm", run_id="1", endpoints=("arm:1",))
    state = AgentState()
    after(
        state,
        prepare_linked(),
        ConnectPart(dataflow_id=ID, attempt=1, peers=(arm,), ended=("base",)),
        ConnectPart(dataflow_id=ID, attempt=1, peers=(base,), ended=("arm",)),
        placed(),
    )
    expected = SetLinkPeers(peers=(base,), ended=("arm",))
    assert SendToRunner(ID, expected) in state.handle(connected(), 0.0)


def test_inspector_needs_a_runner_with_a_directory() -> None:
    state = AgentState()
    request = StreamTopics(stream=7, dataflow_id=ID, topics=("camera/image",))
    end = TopicChunk(stream=7, done=True)
    assert state.parts.read(request) == end
    state.handle(prepare(), 0)
    assert state.parts.read(request) == end
    state.handle(placed(), 0)
    assert state.parts.read(request) == record_of(state)


def test_logs_are_opened_after_the_end() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected(), finished())
    assert state.parts.read(StreamLogs(stream=1, dataflow_id=ID)) == record_of(state)
    assert not state.parts[ID].answers


def test_waiting_nodes_are_reported_until_the_end() -> None:
    state = AgentState()
    waiting = connected("running", only_virtual_left=True)
    started = connected("running")
    (changed,) = messages(after(state, prepare(), placed(), connected(), started, waiting))
    assert isinstance(changed, PartChanged)
    assert changed.report.only_virtual_left
    assert after(state, finished(), waiting) == []
    assert not state.parts.reports()[0].only_virtual_left


@pytest.mark.parametrize("place", [True, False], ids=["placed", "not placed"])
def test_lost_part_is_reported_and_kept_only_for_its_logs(place: bool) -> None:
    state = AgentState()
    after(state, prepare(), *([placed()] if place else []))
    keep, log, report = after(state, RunnerEnded(ID, "killed"))
    assert isinstance(keep, SavePart if place else DropPart)
    assert log == WriteLog("warning", f"dataflow {ID}: killed")
    assert report == SendToCoordinator(PartLost(dataflow_id=ID, attempt=1, reason="killed"))
    assert len(state.parts.records()) == place
    assert state.parts.reports() == ()
    assert not state.parts.is_live(ID)


def test_daemon_connects_after_all_adopted_runners_have_answered() -> None:
    other = "01a20e4b-f5a3-4858-99fe-d510d04b9562"
    records = [
        PartRecord(dataflow_id=dataflow_id, attempt=1, spec=SPEC, runtime_dir="run/0")
        for dataflow_id in (ID, other)
    ]
    state = AgentState(records)
    assert after(state, DaemonStarted()) == [AdoptRunner(record) for record in records]
    assert Connect() not in after(state, connected("running"))
    assert Connect() not in after(state, connected("running"))
    assert after(state, RunnerEnded(other, "gone"))[-1] == Connect()
    assert Connect() not in after(state, connected("running"))


def test_daemon_connects_at_once_without_runners_to_adopt() -> None:
    assert after(AgentState(), DaemonStarted()) == [Connect()]
    unplaced = AgentState([PartRecord(dataflow_id=ID, attempt=1, spec=SPEC)])
    assert after(unplaced, DaemonStarted())[-1] == Connect()
    assert unplaced.parts.records() == ()


def reports(commands: list[Command]) -> list[PartReport]:
    return [one.report for one in messages(commands) if isinstance(one, PartChanged)]


def found_run() -> PartRecord:
    return PartRecord(
        dataflow_id=ID, attempt=1, spec=SPEC, borrowed=True, runtime_dir="run/0", runtime_token=ID
    )


def test_a_run_in_the_foreground_is_adopted_and_reported_at_once() -> None:
    state = AgentState()
    adopt, report = after(state, RunFound(found_run()))
    assert adopt == AdoptRunner(found_run())
    assert [one.phase for one in reports([report])] == ["preparing"]
    assert [one.phase for one in reports(after(state, connected("running")))] == ["running"]


def test_a_borrowed_run_is_released_by_its_owner_only() -> None:
    state = AgentState()
    after(state, RunFound(found_run()), connected("ready"))
    assert after(state, ReleasePart(dataflow_id=ID, attempt=1)) == []


def test_the_link_of_a_borrowed_run_keeps_the_peers_of_its_owner() -> None:
    """Other certificates, of the coordinator of a command, would cut its connections."""
    state = AgentState()
    after(state, RunFound(found_run()), connected("running"))
    peer = PeerEndpoint(machine="other", run_id="r", endpoints=("h:1",), name="other:1")
    assert after(state, ConnectPart(dataflow_id=ID, attempt=1, peers=(peer,))) == []


def test_a_killed_run_in_the_foreground_is_not_started_again() -> None:
    state = AgentState()
    after(state, RunFound(found_run()), connected("running"))
    commands = after(state, RunnerEnded(ID, "its runner ended unexpectedly"))
    result = DataflowResult(dataflow_id=ID, error="its runner ended unexpectedly")
    assert [(one.phase, one.result) for one in reports(commands)] == [("ended", result)]
    assert not any(isinstance(one, PartLost) for one in messages(commands))


def changed_nodes(revision: int = 1) -> NodesRead:
    node = SPEC.resolved.node("camera").model_copy(update={"args": ("fast",)})
    nodes = NodeDefinitions(revision=revision, nodes=(CurrentNode(node=node, code="digest"),))
    return NodesRead(ID, 1, nodes, {"camera": "elsewhere"})


def test_changed_nodes_are_saved_and_described_once() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected("running"))
    commands = after(state, changed_nodes())
    assert [type(command) for command in commands] == [SavePart, SendToCoordinator]
    (described,) = messages(commands)
    assert isinstance(described, PartDescribed)
    assert (described.revision, described.spec.code) == (1, {"camera": "digest"})
    record = record_of(state)
    assert record.spec.resolved.node("camera").args == ("fast",)
    assert record.log_dirs == {"camera": "elsewhere"}
    assert after(state, changed_nodes()) == []
    assert state.parts.reports()[0].revision == 1


def test_nodes_are_read_when_the_revision_of_the_runner_differs() -> None:
    state = AgentState()
    after(state, prepare(), placed(), connected("running"))
    assert after(state, connected("running", revision=0)) == []
    assert after(state, connected("running", revision=1)) == [ReadNodes(ID, 1)]
    again = AgentState(state.parts.records())
    assert ReadNodes(ID, 1) in after(again, DaemonStarted(), connected("running", revision=2))


def test_changed_links_are_saved_sent_and_sent_again_after_a_restart() -> None:
    state = AgentState()
    links = PartLinks(addresses={"station": "10.0.0.2"}, whole=False)
    relinked = LinkPart(dataflow_id=ID, attempt=1, links=links)
    after(state, prepare(), placed(), connected("running"))
    commands = after(state, relinked)
    assert commands == [SavePart(record_of(state)), SetRunnerLinks(record_of(state))]
    assert record_of(state).links == links
    assert after(state, relinked) == []
    of_another_attempt = LinkPart(dataflow_id=ID, attempt=7, links=PartLinks())
    assert after(state, of_another_attempt) == []
    again = AgentState(state.parts.records())
    commands = after(again, DaemonStarted(), connected("running"))
    assert SetRunnerLinks(record_of(again)) in commands


RECORDED = SPEC.model_copy(update={"recording": RecordingPlan(recording=ID)})


def test_nodes_start_once_the_recorders_of_their_dataflow_record() -> None:
    state = AgentState()
    after(state, PreparePart(dataflow_id=ID, attempt=1, spec=RECORDED), placed())
    commands = after(state, connected())
    assert commands[0] == StartRecorders(record_of(state), new_attempt=True)
    assert after(state, connected("ready")) == []
    (message,) = messages(after(state, RecorderSettled(ID)))
    assert isinstance(message, PartChanged)
    assert message.report.phase == "prepared"
    assert after(state, RecorderSettled(ID)) == []


def test_nodes_that_take_longer_than_their_recorders_start_when_ready() -> None:
    state = AgentState()
    after(state, PreparePart(dataflow_id=ID, attempt=1, spec=RECORDED), placed(), connected())
    assert after(state, RecorderSettled(ID)) == []
    assert messages(after(state, connected("ready")))


def test_a_recording_of_running_nodes_holds_for_their_next_attempt() -> None:
    state = AgentState()
    started = connected("running")
    after(state, prepare(), placed(), connected(), started)
    request = RecordingRequested(ID)
    assert after(state, request) == [StartRecorders(record_of(state), new_attempt=False)]
    after(state, RecorderSettled(ID), RunnerEnded(ID, "killed"))
    assert after(state, request) == []
    commands = after(state, prepare(2), placed(), connected())
    assert commands[0] == StartRecorders(record_of(state), new_attempt=True)


def test_the_next_daemon_process_continues_a_recording() -> None:
    record = PartRecord(dataflow_id=ID, attempt=1, spec=SPEC, phase="running", runtime_dir="run/0")
    state = AgentState([record], recorded={ID})
    commands = after(state, DaemonStarted(), connected("running"))
    assert StartRecorders(record, new_attempt=False) in commands
