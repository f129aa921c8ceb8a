"""Starts of parts by the machine while the coordinator is away."""

from __future__ import annotations

import pytest
from support.simulation.fleets import dataflow

from dora_config.protocol.calls import PartLinks
from dora_config.protocol.daemon import (
    ConnectPart,
    EndDaemon,
    ForgetPart,
    PartChanged,
    PartDescribed,
    PartLost,
    PreparePart,
    StopPart,
)
from dora_config.protocol.links import LinkReport, PeerEndpoint, RemoteEdge, SetLinkPeers
from dora_config.protocol.runner import (
    AcknowledgeResult,
    CurrentNode,
    DataflowResult,
    NodeDefinitions,
    Release,
    RunnerState,
)
from dora_daemon.agent.commands import (
    AdoptRunner,
    Command,
    Connect,
    ExitDaemon,
    SavePart,
    SendToCoordinator,
    SendToRunner,
    SignalRunner,
    StartLater,
    StartRunner,
)
from dora_daemon.agent.events import (
    CoordinatorAway,
    CoordinatorConnected,
    CoordinatorLost,
    DaemonStarted,
    Event,
    MachineStopping,
    NodesRead,
    PartDue,
    RunnerChanged,
    RunnerEnded,
    RunnerPlaced,
)
from dora_daemon.agent.parts.part import HEALTHY_SECONDS
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.state import AgentState

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
SPEC = dataflow(camera="robot")
EDGE = RemoteEdge(
    source="camera",
    output="image",
    target="viewer",
    input="image",
    source_machine="robot",
    target_machine="base",
)
BASE = PeerEndpoint(machine="base", run_id="1", endpoints=("10.0.0.1:7450",))
AWAY = CoordinatorAway(20.0)
GONE = RunnerEnded(ID, "the machine was off")


class Machine:
    """An agent and its records, which a power cut leaves on the disk."""

    def __init__(self, records: tuple[PartRecord, ...] = ()) -> None:
        self.state = AgentState(records)
        self.now = 1000.0

    def post(self, *events: Event) -> list[Command]:
        """Return the commands of the last event."""
        commands: list[Command] = []
        for event in events:
            commands = self.state.handle(event, self.now)
        return commands

    def rebooted(self) -> Machine:
        """Return the machine after a power cut, with its old runner found dead."""
        again = Machine(self.state.parts.records())
        assert [type(c) for c in again.post(DaemonStarted())] == [AdoptRunner]
        commands = again.post(GONE)
        assert Connect() in commands
        assert not any(isinstance(c, StartRunner) for c in commands)
        return again

    @property
    def record(self) -> PartRecord:
        (record,) = self.state.parts.records()
        return record


def placed() -> RunnerPlaced:
    return RunnerPlaced(ID, "run/0", "token", {"camera": "out"})


def runner(phase: str, **facts: object) -> RunnerChanged:
    return RunnerChanged(ID, RunnerState.model_validate({"phase": phase, **facts}))


def running(offline: str = "run") -> Machine:
    """A machine on which the part runs."""
    machine = Machine()
    spec = SPEC.model_copy(update={"offline": offline})
    listens = LinkReport(run_id="1", endpoints=("10.0.0.2:7460",))
    machine.post(
        CoordinatorConnected(),
        PreparePart(dataflow_id=ID, attempt=3, spec=spec, links=PartLinks(edges=(EDGE,))),
        placed(),
        runner("starting"),
        runner("starting", link=listens),
        ConnectPart(dataflow_id=ID, attempt=3, peers=(BASE,)),
        runner("ready"),
        runner("running"),
    )
    assert machine.record.ran
    return machine


def starts(commands: list[Command]) -> list[PartRecord]:
    return [command.record for command in commands if isinstance(command, StartRunner)]


def messages(commands: list[Command]) -> list[object]:
    return [command.message for command in commands if isinstance(command, SendToCoordinator)]


def test_a_rebooted_machine_starts_its_part_once_the_coordinator_is_away() -> None:
    machine = running().rebooted()
    assert [report.phase for report in machine.state.parts.reports()] == ["lost"]
    saved, start = machine.post(AWAY)
    assert isinstance(saved, SavePart)
    assert isinstance(start, StartRunner)
    record = start.record
    assert (record.attempt, record.starts, record.phase) == (3, 1, "preparing")
    assert record.recovers == "the machine was off; the coordinator has been away for 20 s"
    assert record.link_endpoint == "10.0.0.2:7460"
    commands = machine.post(placed(), runner("starting"))
    assert SendToRunner(ID, SetLinkPeers(peers=(BASE,))) in commands
    assert SendToRunner(ID, Release()) in machine.post(runner("ready"))
    machine.post(runner("running"))
    (report,) = machine.state.parts.reports()
    assert (report.attempt, report.phase) == (3, "running")


def test_the_coordinator_that_answers_in_time_decides() -> None:
    machine = running().rebooted()
    machine.post(CoordinatorConnected())
    again = PreparePart(dataflow_id=ID, attempt=4, spec=SPEC)
    (record,) = starts(machine.post(again))
    assert (record.attempt, record.starts) == (4, 0)


def test_a_coordinator_that_registers_a_machine_and_hangs_does_not_prevent_the_start() -> None:
    machine = running().rebooted()
    machine.post(CoordinatorConnected(), CoordinatorLost())
    assert len(starts(machine.post(AWAY))) == 1
    # also if the part is lost while the coordinator hangs
    machine = running()
    (lost,) = messages(machine.post(GONE))
    assert isinstance(lost, PartLost)
    assert machine.post(PartDue(ID, 0)) == []
    machine.post(CoordinatorLost())
    assert len(starts(machine.post(AWAY))) == 1


def test_a_lost_part_that_the_coordinator_forgets_is_not_started() -> None:
    machine = running().rebooted()
    machine.post(CoordinatorConnected(), ForgetPart(dataflow_id=ID, attempt=2))
    assert [report.phase for report in machine.state.parts.reports()] == ["lost"]
    machine.post(ForgetPart(dataflow_id=ID, attempt=3), CoordinatorLost())
    assert starts(machine.post(AWAY)) == []
    assert machine.record.forgotten  # its logs remain


def test_the_coordinator_releases_what_the_machine_began() -> None:
    machine = running().rebooted()
    machine.post(AWAY, placed(), runner("starting"), CoordinatorConnected())
    commands = machine.post(runner("ready"))
    assert SendToRunner(ID, Release()) not in commands
    (changed,) = messages(commands)
    assert isinstance(changed, PartChanged)
    assert (changed.report.attempt, changed.report.phase) == (3, "prepared")


def test_nodes_at_the_barrier_are_released_when_the_coordinator_is_lost_again() -> None:
    machine = running().rebooted()
    machine.post(AWAY, placed(), runner("starting"), CoordinatorConnected())
    machine.post(runner("ready"), CoordinatorLost())
    assert machine.post(AWAY) == [SendToRunner(ID, Release())]


@pytest.mark.parametrize("offline", ["run", "wait"])
def test_a_part_that_waits_is_left_to_the_coordinator(offline: str) -> None:
    machine = running(offline)
    again = Machine(machine.state.parts.records())
    again.post(DaemonStarted(), GONE)
    assert again.state.parts.waiting() == [(again.record, 0.0)]
    assert bool(starts(again.post(AWAY))) == (offline == "run")
    assert bool(again.state.parts.waiting()) == (offline == "wait")


def test_a_part_that_never_ran_is_left_to_the_coordinator() -> None:
    machine = Machine()
    machine.post(CoordinatorConnected(), PreparePart(dataflow_id=ID, attempt=1, spec=SPEC))
    machine.post(placed(), runner("starting"), runner("ready"))
    again = Machine(machine.state.parts.records())
    again.post(DaemonStarted(), GONE)
    assert starts(again.post(AWAY)) == []
    assert again.state.parts.records()[0].forgotten


def test_what_was_stopped_stays_stopped() -> None:
    machine = running()
    machine.post(StopPart(dataflow_id=ID))
    again = Machine(machine.state.parts.records())
    again.post(DaemonStarted(), GONE)
    assert starts(again.post(AWAY)) == []
    assert again.record.phase == "ended"
    # as what ended by itself
    machine = running()
    result = DataflowResult(dataflow_id=ID)
    machine.post(CoordinatorLost(), runner("finished", result=result), GONE)
    assert starts(machine.post(AWAY)) == []
    assert Machine(machine.state.parts.records()).post(DaemonStarted()) == [Connect()]


def test_a_runner_that_is_killed_meanwhile_is_started_again_at_once() -> None:
    machine = running()
    machine.post(CoordinatorLost(), AWAY)
    (record,) = starts(machine.post(RunnerEnded(ID, "killed")))
    assert record.starts == 1


def test_a_part_that_fails_again_and_again_is_started_less_often() -> None:
    machine = running().rebooted()
    machine.post(AWAY)
    pauses = []
    for _ in range(8):
        (later,) = [c for c in machine.post(placed(), GONE) if isinstance(c, StartLater)]
        pauses.append(later.seconds)
        assert machine.state.parts.waiting() == [(machine.record, machine.now + later.seconds)]
        machine.now += later.seconds
        stale = PartDue(ID, later.starts - 1)
        assert machine.post(stale) == []
        assert len(starts(machine.post(PartDue(ID, later.starts)))) == 1
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    machine.post(placed())
    machine.now += HEALTHY_SECONDS
    assert len(starts(machine.post(GONE))) == 1  # it had run long enough


def failed() -> RunnerChanged:
    result = DataflowResult(dataflow_id=ID, error="the camera is missing")
    return runner("finished", result=result)


def run_again(machine: Machine) -> list[PartRecord]:
    """Let the part fail at once; return the record of its next start."""
    machine.post(placed(), runner("starting"))
    machine.post(runner("ready"))
    machine.post(runner("running"))
    assert machine.post(failed()) == [SendToRunner(ID, AcknowledgeResult())]
    commands = machine.post(GONE)
    machine.now += 5
    later = [c for c in commands if isinstance(c, StartLater)]
    return starts(machine.post(PartDue(ID, later[0].starts)) if later else commands)


def change_nodes(machine: Machine) -> None:
    """Replace the node, as `dora node replace` does."""
    node = SPEC.resolved.nodes[0].model_copy(update={"args": ("--new",)})
    nodes = NodeDefinitions(revision=1, nodes=(CurrentNode(node=node),))
    machine.post(NodesRead(ID, 3, nodes, {}))


def operate(machine: Machine, revision: int) -> list[Command]:
    """Stop the node and set a parameter."""
    present = tuple(CurrentNode(node=node) for node in machine.record.spec.resolved.nodes)
    nodes = NodeDefinitions(
        revision=revision, nodes=present, params={"camera": {"gain": 3}}, stopped=("camera",)
    )
    return machine.post(NodesRead(ID, 3, nodes, {}))


def test_what_an_operator_did_there_outlives_a_power_cut() -> None:
    machine = running()
    machine.post(CoordinatorLost(), AWAY)
    machine.now += HEALTHY_SECONDS
    saved, sent = operate(machine, revision=1)
    assert saved == SavePart(machine.record)
    (described,) = messages([sent])
    assert isinstance(described, PartDescribed)
    assert (described.revision, described.spec) == (1, machine.record.spec)
    assert machine.record.former is None  # its nodes are the same
    (record,) = starts(machine.rebooted().post(AWAY))
    assert record.spec.resolved == SPEC.resolved
    assert (record.spec.params, record.spec.stopped) == ({"camera": {"gain": 3}}, ("camera",))
    assert record.revision == 1
    # a coordinator that has just returned gets the changes before it starts the nodes again
    machine.post(CoordinatorConnected())
    described, lost = messages(machine.post(GONE))
    assert isinstance(described, PartDescribed)
    assert (described.revision, described.lost) == (1, True)
    assert isinstance(lost, PartLost)


def test_nodes_that_fail_are_tried_again_until_they_have_run_for_long() -> None:
    machine = running().rebooted()
    machine.post(AWAY)
    assert [len(run_again(machine)) for _ in range(5)] == [1] * 5
    machine.post(placed(), runner("running"))
    machine.now += HEALTHY_SECONDS
    machine.post(failed())
    assert machine.record.phase == "ended"


def test_a_later_attempt_that_never_ran_is_started_alone() -> None:
    machine = running().rebooted()
    machine.post(CoordinatorConnected(), PreparePart(dataflow_id=ID, attempt=4, spec=SPEC))
    machine.post(placed(), runner("starting"), runner("ready"))
    machine.post(CoordinatorLost())
    assert machine.post(AWAY) == [SendToRunner(ID, Release())]
    assert len(starts(machine.rebooted().post(AWAY))) == 1


def test_after_three_failures_the_nodes_before_the_change_are_started() -> None:
    machine = running()
    machine.now += HEALTHY_SECONDS
    change_nodes(machine)
    operate(machine, revision=2)
    machine = machine.rebooted()
    (record,) = starts(machine.post(AWAY))
    assert record.spec.resolved.nodes[0].args == ("--new",)
    assert len(run_again(machine)) == len(run_again(machine)) == 1
    (record,) = run_again(machine)
    kept = {"params": {"camera": {"gain": 3}}, "stopped": ("camera",)}
    assert record.spec == SPEC.model_copy(update=kept)
    assert record.revision == 3  # the coordinator reads the nodes again
    assert record.former is None
    assert record.recovers is not None
    assert "its nodes are again those before their last change" in record.recovers


def test_a_change_soon_after_another_keeps_no_nodes_that_hardly_ran() -> None:
    machine = running()
    machine.now += HEALTHY_SECONDS - 1
    change_nodes(machine)
    assert machine.record.former is None


def test_nodes_that_cannot_be_started_are_tried_again_after_their_runner_has_ended() -> None:
    machine = running().rebooted()
    machine.post(AWAY, placed(), runner("starting"))
    result = DataflowResult(dataflow_id=ID, error="camera.py does not exist")
    commands = machine.post(runner("finished", result=result))
    assert commands == [SendToRunner(ID, AcknowledgeResult())]
    machine.post(RunnerEnded(ID, "its runner ended"))
    commands = machine.post(PartDue(ID, 1))
    (record,) = starts(commands)
    assert record.recovers is not None
    assert record.recovers.startswith("camera.py does not exist; the coordinator has been away")


def test_a_part_of_which_nothing_runs_is_stopped_at_once() -> None:
    machine = running().rebooted()
    commands = machine.post(StopPart(dataflow_id=ID))
    assert machine.record.phase == "ended"
    assert not any(isinstance(c, SignalRunner) for c in commands)
    assert starts(machine.post(AWAY)) == []


@pytest.mark.parametrize("end", [EndDaemon(), MachineStopping()])
def test_the_daemon_ends_without_waiting_for_a_part_that_does_not_run(end: Event) -> None:
    machine = running().rebooted()
    assert ExitDaemon() in machine.post(end)
    assert starts(machine.post(AWAY)) == []
