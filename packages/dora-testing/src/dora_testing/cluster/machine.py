"""Simulated machine of a fleet: the agent's real state machine with fake runners."""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from dora_config.history.entries import HistoryEntry
from dora_config.protocol.calls import ChangePart, LinkPart, PartResult
from dora_config.protocol.daemon import (
    TO_COORDINATOR,
    DaemonMessage,
    PartHistory,
    ReadHistory,
    StreamLogs,
)
from dora_config.protocol.links import SetLinkPeers
from dora_config.protocol.runner import (
    AcknowledgeResult,
    CurrentNode,
    DataflowResult,
    NodeDefinitions,
    NodeResult,
    Release,
    RunnerRequest,
    RunnerState,
    StopAllNodes,
)
from dora_config.protocol.topics import StreamTopics
from dora_coordinator.queries.graph_changes import applied
from dora_daemon.agent import commands as agent_commands, events as agent_events
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.service import OFFLINE_AFTER
from dora_daemon.agent.state import AgentState
from dora_testing.cluster.link import SimulatedLink


class Crashed(Exception):
    """A process was killed between two writes."""


@dataclass
class SimulatedRunner:
    """State of a simulated runner process."""

    dataflow_id: str
    attempt: int
    nodes: tuple[str, ...]
    phase: str = "starting"
    killed: bool = False
    """Its nodes are killed without a grace period."""
    result: DataflowResult | None = None
    link: SimulatedLink | None = None
    only_virtual_left: bool = False
    stop_reason: str | None = None
    revision: int = 0
    current: tuple[CurrentNode, ...] = ()
    """Its nodes after the last change."""
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()

    @property
    def lives(self) -> bool:
        """Whether its nodes may be running."""
        return self.phase in ("starting", "ready", "running", "stopping")

    def release(self) -> None:
        """Open the start barrier."""
        self.phase = "running"

    def stop(self, request: StopAllNodes) -> None:
        """Stop all nodes."""
        self.phase = "stopping"
        self.killed = request.force
        self.stop_reason = request.reason

    def history(self) -> tuple[HistoryEntry, ...]:
        """Return the events that it has kept."""
        return ()

    def changed(self) -> agent_events.RunnerChanged:
        """Return its state as an event of the agent."""
        facts = {
            "phase": self.phase,
            "result": self.result,
            "link": self.link and self.link.report(),
            "only_virtual_left": self.only_virtual_left,
            "revision": self.revision,
        }
        return agent_events.RunnerChanged(self.dataflow_id, RunnerState.model_validate(facts))


@dataclass
class SimulatedDaemon:
    """One machine: its disk, its runners, and the daemon process while it runs."""

    name: str
    machine_id: str | None
    labels: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    """Other fields of its registration."""
    instance: str = field(default_factory=lambda: str(uuid.uuid4()))
    disk: dict[str, PartRecord] = field(default_factory=dict)
    runners: list[SimulatedRunner] = field(default_factory=list)
    agent: AgentState | None = None
    incarnation: int = 0
    boots: int = 1
    clock: float = 0.0
    """Seconds by which the clock of the machine is ahead."""
    connection: int | None = None
    codec: bool = True
    to_coordinator: deque[Any] = field(default_factory=deque)
    from_coordinator: deque[Any] = field(default_factory=deque)
    crash_in: int = 0
    """The daemon process is killed before this write, counted from now; 0: it is not."""
    runner_events: deque[agent_events.Event] = field(default_factory=deque)
    broken_nodes: set[str] = field(default_factory=set)
    """Nodes that exit before they connect."""
    watches: list[StreamTopics] = field(default_factory=list)
    """Inspectors that it has started."""
    refuses: str | None = None
    """Why its runners refuse changes."""
    link_problem: str | None = None
    """Why links cannot listen on this machine."""
    away_since: float | None = None
    """Time from which the daemon has had no connection; None: it has one, or was away long."""
    due: list[tuple[float, agent_events.PartDue]] = field(default_factory=list)
    """Starts without the coordinator that wait."""
    _last_token: int = 0

    @property
    def key(self) -> str:
        return self.machine_id or f"default-{self.instance[:8]}"

    def living(self, dataflow_id: str) -> list[SimulatedRunner]:
        return [r for r in self.runners if r.dataflow_id == dataflow_id and r.lives]

    def start(self, now: float) -> None:
        """Start the daemon process; it adopts the runners of its live parts."""
        assert self.agent is None
        self.incarnation += 1
        self.agent = AgentState(self.disk.values())
        self.away_since = now
        self.due.clear()
        self.handle(agent_events.DaemonStarted(), now)

    def handle(self, event: agent_events.Event, now: float) -> None:
        """Let the agent handle an event and execute its commands."""
        assert self.agent is not None
        for command in self.agent.handle(event, now + self.clock):
            if self.agent is not None:
                self._execute(command, now)

    def timers(self) -> list[float]:
        """Return when `pass_time` has something to do."""
        if self.agent is None:
            return []
        away = [] if self.away_since is None else [self.away_since + OFFLINE_AFTER]
        return [*away, *(at for at, _ in self.due)]

    def connected(self, now: float) -> None:
        """The coordinator has registered it."""
        self.away_since = None
        self.handle(agent_events.CoordinatorConnected(), now)

    def disconnected(self, now: float) -> None:
        if self.agent is not None:
            self.away_since = now
            self.handle(agent_events.CoordinatorLost(), now)

    def pass_time(self, now: float) -> None:
        """Start parts without the coordinator when that is due."""
        if self.agent is None:
            return
        if self.away_since is not None and now - self.away_since >= OFFLINE_AFTER:
            self.away_since = None
            self.handle(agent_events.CoordinatorAway(OFFLINE_AFTER), now)
        ready = [event for at, event in self.due if at <= now]
        self.due = [(at, event) for at, event in self.due if at > now]
        for event in ready:
            if self.agent is not None:
                self.handle(event, now)

    def kill_runner(self, runner: SimulatedRunner) -> None:
        runner.phase = "dead"
        if self.agent is not None:
            gone = agent_events.RunnerEnded(runner.dataflow_id, "its runner was killed")
            self.runner_events.append(gone)

    def step_runner(self, runner: SimulatedRunner) -> bool:
        """Advance a runner: its nodes connect, or end after a stop."""
        if runner.phase == "starting":
            if self.broken_nodes & set(runner.nodes):
                self.finish_runner(runner, failed=self.broken_nodes)
            else:
                runner.phase = "ready"
                self.report_runner(runner)
            return True
        if runner.phase == "stopping":
            self.finish_runner(runner)
            return True
        return False

    def finish_runner(self, runner: SimulatedRunner, *, failed: set[str] | None = None) -> None:
        """All nodes end."""
        runner.phase = "finished"

        def ended(node: str) -> NodeResult:
            if node in (failed or ()):
                return NodeResult(node=node, outcome="failed", message="exited with code 1")
            if runner.killed:
                return NodeResult(node=node, outcome="failed", message="killed", signal="SIGKILL")
            return NodeResult(node=node, outcome="success")

        nodes = tuple(map(ended, runner.nodes))
        runner.result = DataflowResult(dataflow_id=runner.dataflow_id, nodes=nodes)
        self.report_runner(runner)

    def _adopted(self, record: PartRecord) -> agent_events.Event:
        dataflow_id = record.dataflow_id
        for runner in self.runners:
            if (runner.dataflow_id, runner.attempt) != (dataflow_id, record.attempt):
                continue
            if runner.phase != "dead":
                return runner.changed()
        return agent_events.RunnerEnded(dataflow_id, "its runner is gone")

    def _execute(self, command: agent_commands.Command, now: float) -> None:
        if self.crash_in and isinstance(command, agent_commands.SavePart | agent_commands.DropPart):
            self.crash_in -= 1
            if not self.crash_in:
                self.agent = None
                self.runner_events.clear()
                return
        match command:
            case agent_commands.SavePart(record=record):
                if self.codec:
                    record = PartRecord.model_validate_json(record.model_dump_json())
                self.disk[record.dataflow_id] = record
            case agent_commands.DropPart(dataflow_id=dataflow_id):
                self.disk.pop(dataflow_id, None)
            case agent_commands.SendToCoordinator(message=message):
                self._send_to_coordinator(message)
            case agent_commands.StartRunner(record=record):
                self._start_runner(record, now)
            case agent_commands.StartLater(dataflow_id=dataflow_id, starts=starts):
                due = agent_events.PartDue(dataflow_id, starts)
                self.due.append((now + command.seconds, due))
            case agent_commands.AdoptRunner(record=record):
                self.handle(self._adopted(record), now)
            case agent_commands.SendToRunner(dataflow_id=dataflow_id, request=request):
                for runner in self.runners:
                    if runner.dataflow_id == dataflow_id:
                        self._send_to_runner(runner, request)
            case agent_commands.KillRunner(dataflow_id=dataflow_id):
                for runner in self.living(dataflow_id):
                    self.kill_runner(runner)
            case agent_commands.SetRunnerLinks(record=record):
                for runner in self.living(record.dataflow_id):
                    self._link(runner, record)
            case agent_commands.ReadNodes(dataflow_id=dataflow_id):
                for runner in self.living(dataflow_id):
                    self.runner_events.append(self._nodes_of(runner))
            case agent_commands.ExitDaemon():
                self.agent = None
            case _:
                pass

    def read(self, request: StreamLogs | ReadHistory | StreamTopics) -> None:
        """Read from a part, if it has something to read."""
        assert self.agent is not None
        found = self.agent.parts.read(request)
        if not isinstance(found, PartRecord):
            self._send_to_coordinator(found)
        elif isinstance(request, ReadHistory):
            kept = [r.history() for r in self.runners if r.dataflow_id == found.dataflow_id]
            self._send_to_coordinator(PartHistory(read=request.read, entries=sum(kept, ())))
        elif isinstance(request, StreamTopics):
            self.watches.append(request)

    def change(self, message: ChangePart, now: float, *, dies: bool = False) -> None:
        """Let the runner of a part change its nodes; ``dies``: the daemon is killed before it
        stores the change.
        """
        assert self.agent is not None
        record = self.agent.parts.record(message.dataflow_id)
        problem = self.refuses
        if record is None or record.attempt != message.attempt:
            problem = "the nodes on this machine are not running"
        if problem is not None or record is None:
            self._send_to_coordinator(PartResult(call=message.call, problem=problem))
            return
        (runner,) = self.living(message.dataflow_id)
        resolved = applied(record.spec.resolved, message.change)
        runner.current = tuple(CurrentNode(node=node) for node in resolved.nodes)
        runner.nodes = tuple(node.id for node in resolved.nodes)
        runner.revision += 1
        if dies:
            self.agent = None
            return
        flow, attempt = message.dataflow_id, message.attempt
        self.handle(LinkPart(dataflow_id=flow, attempt=attempt, links=message.links), now)
        self.handle(self._nodes_of(runner), now)
        self._send_to_coordinator(PartResult(call=message.call))

    @staticmethod
    def _nodes_of(runner: SimulatedRunner) -> agent_events.NodesRead:
        nodes = NodeDefinitions(
            revision=runner.revision,
            nodes=runner.current,
            params=runner.params,
            stopped=runner.stopped,
        )
        return agent_events.NodesRead(runner.dataflow_id, runner.attempt, nodes, {})

    def _link(self, runner: SimulatedRunner, record: PartRecord) -> None:
        if runner.link is None and record.links.edges:
            runner.link = SimulatedLink(record.machine, record.runtime_token, record.links.edges)
        elif runner.link is not None:
            runner.link.edges = record.links.edges

    def _send_to_coordinator(self, message: DaemonMessage) -> None:
        if self.connection is not None:
            self.send(message)

    def send(self, message: DaemonMessage) -> None:
        self.to_coordinator.append(TO_COORDINATOR.encode(message) if self.codec else message)

    def _start_runner(self, record: PartRecord, now: float) -> None:
        assert not self.living(record.dataflow_id), "two runners of one part"
        nodes = tuple(node.id for node in record.spec.resolved.nodes)
        dataflow_id = record.dataflow_id
        self.runners = [r for r in self.runners if r.dataflow_id != dataflow_id]
        self._last_token += 1
        token = f"{self.name}-{self._last_token}"
        current = tuple(CurrentNode(node=node) for node in record.spec.resolved.nodes)
        runner = self.make_runner(record)
        runner.revision, runner.current = record.revision, current
        params = record.spec.params
        runner.params = {node: values for node, values in params.items() if node in nodes}
        runner.stopped = tuple(node for node in record.spec.stopped if node in nodes)
        if record.links.edges:
            assert record.machine == self.key
            runner.link = SimulatedLink(record.machine, token, record.links.edges)
        place = agent_events.RunnerPlaced(dataflow_id, "run/0", token, dict.fromkeys(nodes, "out"))
        self.handle(place, now)
        if self.agent is None:  # killed before it spawned the runner
            return
        self.runners.append(runner)
        self.report_runner(runner)

    def _send_to_runner(self, runner: SimulatedRunner, request: RunnerRequest) -> None:
        match request:
            case Release() if runner.phase == "ready":
                runner.release()
                self.report_runner(runner)
            case StopAllNodes() if runner.lives:
                runner.stop(request)
            case SetLinkPeers():
                assert runner.link is not None, "peers for a part without a link"
                if runner.lives:
                    runner.link.set_peers(request)
            case AcknowledgeResult():
                record = self.disk[runner.dataflow_id]
                again = record.starts_alone and runner.result is not None and not runner.result.ok
                assert record.phase == "ended" or again, "acknowledged, not saved"
                runner.phase = "gone"
                gone = agent_events.RunnerEnded(runner.dataflow_id, "its runner has ended")
                self.runner_events.append(gone)

    def make_runner(self, record: PartRecord) -> SimulatedRunner:
        nodes = tuple(node.id for node in record.spec.resolved.nodes)
        return SimulatedRunner(record.dataflow_id, record.attempt, nodes)

    def report_runner(self, runner: SimulatedRunner) -> None:
        """Let a runner report its state."""
        if self.agent is not None:
            self.runner_events.append(runner.changed())
