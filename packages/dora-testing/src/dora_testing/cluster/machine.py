"""Simulated machine of a fleet: the agent's real state machine, and what it sees of runners."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dora_config.history.entries import HistoryEntry
from dora_config.protocol import runner as protocol
from dora_config.protocol.calls import ChangePart
from dora_config.protocol.daemon import (
    DaemonAnswered,
    DaemonCall,
    DaemonMessage,
    PartHistory,
    ReadHistory,
    StreamLogs,
)
from dora_config.protocol.links import SetLinkPeers
from dora_config.protocol.snapshot import MachineSample, SampleMachine
from dora_config.protocol.topics import StreamTopics
from dora_daemon.agent import commands as agent_commands, events as agent_events
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.service import OFFLINE_AFTER
from dora_daemon.agent.state import AgentState
from dora_testing.cluster.link import SimulatedLink


class InProcessRunner(ABC):
    """A simulated runner process, as its machine sees it."""

    def __init__(self, record: PartRecord) -> None:
        self.dataflow_id, self.attempt = record.dataflow_id, record.attempt
        specs = record.spec.resolved.nodes
        self.nodes = tuple(spec.id for spec in specs)
        self.phase = "starting"
        self.result: protocol.DataflowResult | None = None
        self.link: SimulatedLink | None = None
        self.only_virtual_left = False
        self.definitions = protocol.NodeDefinitions(
            revision=record.revision,
            nodes=tuple(protocol.CurrentNode(node=spec) for spec in specs),
            params={node: p for node, p in record.spec.params.items() if node in self.nodes},
            stopped=tuple(node for node in record.spec.stopped if node in self.nodes),
        )

    @property
    def lives(self) -> bool:
        """Whether its nodes may be running."""
        return self.phase in ("starting", "ready", "running", "stopping")

    @abstractmethod
    def release(self) -> None:
        """Open the start barrier."""

    @abstractmethod
    def stop(self, request: protocol.StopAllNodes) -> None:
        """Stop all nodes."""

    @abstractmethod
    def work(self) -> bool:
        """Let each node take a step; return whether anything happened."""

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
            "revision": self.definitions.revision,
        }
        return agent_events.RunnerChanged(
            self.dataflow_id, protocol.RunnerState.model_validate(facts)
        )

    def nodes_read(self) -> agent_events.NodesRead:
        return agent_events.NodesRead(self.dataflow_id, self.attempt, self.definitions, {})


R = TypeVar("R", bound=InProcessRunner)


@dataclass
class InProcessMachine(ABC, Generic[R]):
    """One machine: its disk, its runners, and the daemon process while it runs."""

    name: str
    machine_id: str | None
    instance: str = field(default_factory=lambda: str(uuid.uuid4()))
    disk: dict[str, PartRecord] = field(default_factory=dict)
    runners: list[R] = field(default_factory=list)
    agent: AgentState | None = None
    incarnation: int = 0
    boots: int = 1
    clock: float = 0.0
    """Seconds by which the clock of the machine is ahead."""
    connection: int | None = None
    to_coordinator: deque[Any] = field(default_factory=deque)
    from_coordinator: deque[Any] = field(default_factory=deque)
    runner_events: deque[agent_events.Event] = field(default_factory=deque)
    away_since: float | None = None
    """Time from which the daemon has had no connection; None: it has one, or was away long."""
    due: list[tuple[float, agent_events.PartDue]] = field(default_factory=list)
    """Waiting starts of parts without the coordinator."""
    _last_token: int = 0

    @abstractmethod
    def make_runner(self, record: PartRecord) -> R:
        """Return the runner of a part."""

    @property
    def key(self) -> str:
        return self.machine_id or f"default-{self.instance[:8]}"

    def living(self, dataflow_id: str) -> list[R]:
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

    def connected(self, now: float) -> None:
        """Note that the coordinator has registered the daemon."""
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

    def kill_runner(self, runner: R) -> None:
        runner.phase = "dead"
        self._ended(runner, "its runner was killed")

    def report_runner(self, runner: InProcessRunner) -> None:
        """Let a runner report its state."""
        if self.agent is not None:
            self.runner_events.append(runner.changed())

    def _ended(self, runner: R, why: str) -> None:
        if self.agent is not None:
            self.runner_events.append(agent_events.RunnerEnded(runner.dataflow_id, why))

    def _adopted(self, record: PartRecord) -> agent_events.Event:
        for runner in self.runners:
            same = (runner.dataflow_id, runner.attempt) == (record.dataflow_id, record.attempt)
            if same and runner.phase != "dead":
                return runner.changed()
        return agent_events.RunnerEnded(record.dataflow_id, "its runner is gone")

    def _execute(self, command: agent_commands.Command, now: float) -> None:
        match command:
            case agent_commands.SavePart(record=record):
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
            case agent_commands.SignalRunner(dataflow_id=dataflow_id, signal="SIGKILL"):
                for runner in self.living(dataflow_id):
                    self.kill_runner(runner)
            case agent_commands.SetRunnerLinks(record=record):
                for runner in self.living(record.dataflow_id):
                    self._link(runner, record)
            case agent_commands.ReadNodes(dataflow_id=dataflow_id):
                self.runner_events += [one.nodes_read() for one in self.living(dataflow_id)]
            case agent_commands.ExitDaemon():
                self.agent = None
            case _:
                pass

    def read(self, request: StreamLogs | StreamTopics) -> PartRecord | None:
        """Read from a part; return it if it has something to read."""
        assert self.agent is not None
        found = self.agent.parts.read(request)
        if isinstance(found, PartRecord):
            return found
        self._send_to_coordinator(found)
        return None

    def answer(self, call: DaemonCall, now: float) -> None:
        """Answer a request, unless it is for a runner or recorder."""
        match call.request:
            case SampleMachine():
                reply = DaemonAnswered(call=call.call, reply=MachineSample())
            case ReadHistory(dataflow_id=dataflow_id):
                kept = [r.history() for r in self.runners if r.dataflow_id == dataflow_id]
                history = protocol.RunnerHistory(entries=sum(kept, ()))
                reply = DaemonAnswered(call=call.call, reply=PartHistory(history=history))
            case ChangePart() as change:
                problem = self.change(change, now)
                done = protocol.Done() if problem is None else None
                reply = DaemonAnswered(call=call.call, reply=done, problem=problem)
            case _:
                return
        self._send_to_coordinator(reply)

    def change(self, message: ChangePart, now: float) -> str | None:
        """Change the nodes of a part; return why that is refused."""
        return "nodes of a simulated machine cannot be changed"

    def _link(self, runner: R, record: PartRecord) -> None:
        if runner.link is not None:
            runner.link.edges = record.links.edges
        elif record.links.edges:
            assert record.machine == self.key
            runner.link = SimulatedLink(record.machine, record.runtime_token, record.links.edges)

    def _send_to_coordinator(self, message: DaemonMessage) -> None:
        if self.connection is not None:
            self.send(message)

    def send(self, message: DaemonMessage) -> None:
        self.to_coordinator.append(message)

    def _start_runner(self, record: PartRecord, now: float) -> None:
        assert not self.living(record.dataflow_id), "two runners of one part"
        self.runners = [r for r in self.runners if r.dataflow_id != record.dataflow_id]
        self._last_token += 1
        token = f"{self.name}-{self._last_token}"
        runner = self.make_runner(record)
        self._link(runner, record.model_copy(update={"runtime_token": token}))
        outputs = dict.fromkeys(runner.nodes, "out")
        place = agent_events.RunnerPlaced(record.dataflow_id, "run/0", token, outputs)
        self.handle(place, now)
        if self.agent is None:  # killed before it spawned the runner
            return
        self.runners.append(runner)
        self.report_runner(runner)

    def _send_to_runner(self, runner: R, request: protocol.RunnerRequest) -> None:
        match request:
            case protocol.Release() if runner.phase == "ready":
                runner.release()
                self.report_runner(runner)
            case protocol.StopAllNodes() if runner.lives:
                runner.stop(request)
            case SetLinkPeers():
                assert runner.link is not None, "peers for a part without a link"
                if runner.lives:
                    runner.link.set_peers(request)
            case protocol.AcknowledgeResult():
                record = self.disk[runner.dataflow_id]
                again = record.starts_alone and runner.result is not None and not runner.result.ok
                assert record.phase == "ended" or again, "acknowledged, not saved"
                runner.phase = "gone"
                self._ended(runner, "its runner has ended")
