"""The agent's decisions that a whole fleet rarely provokes."""

from __future__ import annotations

from support.simulation.fleet_simulation import dataflow

from dora_config.protocol.daemon import (
    ConnectPart,
    DescribePart,
    ForgetPart,
    Leaving,
    PartChanged,
    PartDescribed,
    PartLost,
    PreparePart,
    ReleasePart,
    StopPart,
    StreamLogs,
)
from dora_config.protocol.links import LinkReport, PeerEndpoint, PeerReport, SetLinkPeers
from dora_config.protocol.runner import (
    AcknowledgeResult,
    DataflowFinished,
    DataflowResult,
    DataflowStarted,
    LinkChanged,
    NodesReady,
    Release,
    RunnerStatus,
    ShutDown,
    StopAllNodes,
)
from dora_config.protocol.topics import EndTopics, MoreTopics, StreamTopics, TopicChunk
from dora_daemon.agent.commands import (
    AskRunner,
    Command,
    EndDaemon,
    KillRunner,
    MindWatch,
    OpenWatch,
    SavePart,
    StartRunner,
    TellCoordinator,
)
from dora_daemon.agent.events import (
    CoordinatorSpoke,
    EndAsked,
    Event,
    HandOverAsked,
    MachineStops,
    RunnerGone,
    RunnerPlaced,
    RunnerReached,
    RunnerSpoke,
)
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.state import AgentState

SPEC = dataflow(camera="robot")
ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"


def prepare(attempt: int = 1) -> CoordinatorSpoke:
    return CoordinatorSpoke(PreparePart(dataflow_id=ID, attempt=attempt, spec=SPEC))


def placed() -> RunnerPlaced:
    return RunnerPlaced(ID, "run/0", "token", {"camera": "out"})


def reached(phase: str = "starting", result: DataflowResult | None = None) -> RunnerReached:
    facts = {"dataflow_id": ID, "phase": phase, "result": result}
    return RunnerReached(ID, RunnerStatus.model_validate(facts))


def finished() -> RunnerSpoke:
    return RunnerSpoke(ID, DataflowFinished(result=DataflowResult(dataflow_id=ID)))


def after(state: AgentState, *events: Event) -> list[Command]:
    """Commands of the last event."""
    commands: list[Command] = []
    for event in events:
        commands = state.handle(event, 1.0)
    return commands


def asked(commands: list[Command]) -> list[object]:
    return [command.request for command in commands if isinstance(command, AskRunner)]


def told(commands: list[Command]) -> list[object]:
    return [command.message for command in commands if isinstance(command, TellCoordinator)]


def test_a_part_is_on_disk_before_its_runner_starts() -> None:
    commands = after(AgentState(), prepare())
    assert [type(command) for command in commands] == [SavePart, StartRunner]


def test_the_same_preparation_twice_starts_one_runner() -> None:
    commands = after(AgentState(), prepare(), prepare())
    assert not any(isinstance(command, StartRunner) for command in commands)
    (message,) = told(commands)
    assert isinstance(message, PartChanged)
    assert message.report.phase == "preparing"


def test_a_new_attempt_waits_until_nothing_of_the_old_is_left() -> None:
    state = AgentState()
    commands = after(state, prepare(), placed(), reached(), prepare(2))
    assert commands == [KillRunner(ID)]
    commands = after(state, RunnerGone(ID, "killed"))
    assert [type(command) for command in commands] == [SavePart, StartRunner]
    assert told(commands) == []
    assert state.parts[ID].record.attempt == 2


def test_a_stop_that_comes_before_the_runner_answers_reaches_it_later() -> None:
    state = AgentState()
    commands = after(state, prepare(), placed(), CoordinatorSpoke(StopPart(dataflow_id=ID)))
    assert asked(commands) == []
    assert asked(after(state, reached("ready"))) == [StopAllNodes()]


def test_a_runner_that_does_not_answer_is_killed_by_a_forced_stop() -> None:
    forced = CoordinatorSpoke(StopPart(dataflow_id=ID, force=True))
    assert KillRunner(ID) in after(AgentState(), prepare(), placed(), forced)


def test_a_stop_outlives_the_daemon() -> None:
    record = PartRecord(dataflow_id=ID, attempt=1, spec=SPEC, phase="running", stopping=True)
    state = AgentState([record])
    (report,) = state.reports()
    assert report.phase == "stopping"
    assert asked(after(state, reached("running"))) == [StopAllNodes()]


def test_a_release_for_another_attempt_is_ignored() -> None:
    state = AgentState()
    after(state, prepare(2), placed(), reached(), RunnerSpoke(ID, NodesReady()))
    assert after(state, CoordinatorSpoke(ReleasePart(dataflow_id=ID, attempt=1))) == []
    right = CoordinatorSpoke(ReleasePart(dataflow_id=ID, attempt=2))
    assert asked(after(state, right)) == [Release()]
    after(state, RunnerSpoke(ID, DataflowStarted(dataflow_id=ID)))
    again = after(state, right)
    assert asked(again) == []
    (message,) = told(again)
    assert isinstance(message, PartChanged)
    assert message.report.phase == "running"


def test_a_result_is_saved_before_it_is_acknowledged_and_told() -> None:
    state = AgentState()
    started = RunnerSpoke(ID, DataflowStarted(dataflow_id=ID))
    commands = after(state, prepare(), placed(), reached(), started, finished())
    assert [type(command) for command in commands] == [SavePart, AskRunner, TellCoordinator]
    assert asked(commands) == [AcknowledgeResult()]
    assert state.reports()[0].result == DataflowResult(dataflow_id=ID)
    assert after(state, finished()) == []
    after(state, CoordinatorSpoke(ForgetPart(dataflow_id=ID, attempt=1)))
    assert state.reports() == ()
    assert ID in state.parts  # its logs can still be found


def test_what_is_not_here_is_said_not_to_be_here() -> None:
    state = AgentState()
    (lost,) = told(after(state, CoordinatorSpoke(StopPart(dataflow_id=ID))))
    assert isinstance(lost, PartLost)
    assert after(state, CoordinatorSpoke(DescribePart(dataflow_id=ID))) == []
    (chunk,) = told(after(state, CoordinatorSpoke(StreamLogs(stream=1, dataflow_id=ID))))
    assert "no logs of that dataflow" in str(chunk)
    assert after(state, finished(), RunnerGone(ID, "x"), reached()) == []


def test_a_part_can_be_described() -> None:
    state = AgentState()
    message, _ = told(after(state, prepare(3), CoordinatorSpoke(DescribePart(dataflow_id=ID))))
    assert message == PartDescribed(dataflow_id=ID, attempt=3, spec=SPEC)


def test_ending_stops_dataflows_first_and_at_once_the_second_time() -> None:
    state = AgentState()
    commands = after(state, prepare(), placed(), reached(), EndAsked())
    (stop,) = asked(commands)
    assert isinstance(stop, StopAllNodes)
    assert not stop.force
    (kill,) = asked(after(state, EndAsked()))
    assert isinstance(kill, StopAllNodes)
    assert kill.force
    commands = after(state, finished())
    assert told(commands)[-1] == Leaving(hand_over=False)
    assert commands[-1] == EndDaemon()
    (lost,) = told(after(state, prepare(9), prepare(9)))
    assert isinstance(lost, PartLost)


def test_an_idle_daemon_ends_at_once() -> None:
    assert after(AgentState(), EndAsked())[-1] == EndDaemon()


def test_a_hand_over_stops_nothing() -> None:
    commands = after(AgentState(), prepare(), placed(), reached(), HandOverAsked())
    assert asked(commands) == []
    assert told(commands) == [Leaving(hand_over=True)]
    assert commands[-1] == EndDaemon()


def test_a_machine_that_stops_ends_its_nodes_and_not_its_dataflows() -> None:
    state = AgentState()
    after(state, prepare(), placed(), reached("running"))
    record = state.parts[ID].record
    (shut_down,) = state.handle(MachineStops(), 0.0)
    assert isinstance(shut_down, AskRunner)
    assert isinstance(shut_down.request, ShutDown)
    assert state.handle(finished(), 0.0) == []
    gone = state.handle(RunnerGone(ID, "ended"), 0.0)
    assert gone == [TellCoordinator(Leaving(hand_over=True)), EndDaemon()]
    assert state.parts[ID].record == record, "the next daemon must not take it for ended"


def test_a_machine_that_stops_without_parts_waits_for_nothing() -> None:
    assert AgentState().handle(MachineStops(), 0.0)[-1] == EndDaemon()


def test_a_second_signal_hurries_a_machine_that_stops() -> None:
    state = AgentState()
    after(state, prepare(), placed(), reached("running"), MachineStops())
    assert state.handle(EndAsked(), 0.0) == [KillRunner(ID)]
    (lost,) = told(state.handle(prepare(2), 0.0))
    assert isinstance(lost, PartLost)


def linked(state: str, rtt: int) -> LinkReport:
    peer = PeerReport.model_validate({"machine": "base", "state": state, "rtt_us": rtt})
    return LinkReport(run_id="r", endpoints=("10.0.0.7:7450",), peers=(peer,))


def test_news_of_a_link_are_told_and_figures_are_not() -> None:
    state = AgentState()
    after(state, prepare(), placed(), reached())
    reports = [linked("connecting", 0), linked("proven", 300), linked("proven", 400)]
    counts = [
        len(told(state.handle(RunnerSpoke(ID, LinkChanged(report=report)), 0.0)))
        for report in reports
    ]
    assert counts == [1, 1, 0]
    (report,) = state.reports()
    assert report.link == reports[-1]


def test_peers_told_too_early_are_passed_on_once_the_runner_answers() -> None:
    first = PeerEndpoint(machine="base", run_id="1", endpoints=("base:1",))
    moved = PeerEndpoint(machine="base", run_id="2", endpoints=("base:2",))
    other = PeerEndpoint(machine="arm", run_id="1", endpoints=("arm:1",))
    state = AgentState()
    after(
        state,
        prepare(),
        CoordinatorSpoke(ConnectPart(dataflow_id=ID, attempt=1, peers=(first, other))),
        CoordinatorSpoke(ConnectPart(dataflow_id=ID, attempt=1, peers=(moved,), ended=("x",))),
        CoordinatorSpoke(ConnectPart(dataflow_id=ID, attempt=2, peers=(first,))),
        placed(),
    )
    expected = SetLinkPeers(peers=(moved, other), ended=("x",))
    assert AskRunner(ID, expected) in state.handle(reached(), 0.0)
    later = CoordinatorSpoke(ConnectPart(dataflow_id=ID, attempt=1, peers=(first,)))
    assert state.handle(later, 0.0) == [AskRunner(ID, SetLinkPeers(peers=(first,)))]


def test_a_watch_needs_a_runner_that_has_its_place() -> None:
    state = AgentState()
    asked = StreamTopics(stream=7, dataflow_id=ID, topics=("camera/image",))
    nobody = [TellCoordinator(TopicChunk(stream=7, done=True))]
    assert state.handle(CoordinatorSpoke(asked), 0) == nobody
    state.handle(prepare(), 0)
    assert state.handle(CoordinatorSpoke(asked), 0) == nobody
    state.handle(RunnerPlaced(ID, "run/0", "token", {}), 0)
    record = state.parts[ID].record
    assert state.handle(CoordinatorSpoke(asked), 0) == [OpenWatch(record, asked)]
    more, end = MoreTopics(stream=7), EndTopics(stream=7)
    assert state.handle(CoordinatorSpoke(more), 0) == [MindWatch(more)]
    assert state.handle(CoordinatorSpoke(end), 0) == [MindWatch(end)]
