"""Simulated machines with fake runners: nodes that fail or change, and crashes of processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dora_config.protocol.calls import ChangePart, LinkPart
from dora_config.protocol.daemon import TO_COORDINATOR, DaemonMessage, Register, StreamLogs
from dora_config.protocol.runner import (
    CurrentNode,
    DataflowResult,
    NodeDefinitions,
    NodeResult,
    StopAllNodes,
)
from dora_config.protocol.topics import StreamTopics
from dora_coordinator.queries.graph_changes import applied
from dora_daemon.agent import commands as agent_commands
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.service import OFFLINE_AFTER
from dora_testing.cluster.machine import InProcessMachine, InProcessRunner


class Crashed(Exception):
    """A process was killed between two writes."""


class SimulatedRunner(InProcessRunner):
    """A runner whose nodes connect at once, and end when they are stopped."""

    def __init__(self, record: PartRecord, machine: SimulatedDaemon) -> None:
        super().__init__(record)
        self._machine = machine
        self.killed = False
        """Its nodes are killed without a grace period."""
        self.stop_reason: str | None = None

    def release(self) -> None:
        self.phase = "running"

    def stop(self, request: StopAllNodes) -> None:
        self.phase = "stopping"
        self.killed = request.force
        self.stop_reason = request.reason

    def work(self) -> bool:
        """Let its nodes connect, or end after a stop."""
        if self.phase == "starting":
            if self._machine.broken_nodes & set(self.nodes):
                self.finish(self._machine.broken_nodes)
            else:
                self.phase = "ready"
                self._machine.report_runner(self)
            return True
        if self.phase == "stopping":
            self.finish()
            return True
        return False

    def finish(self, failed: set[str] | None = None) -> None:
        """All nodes end."""
        self.phase = "finished"

        def ended(node: str) -> NodeResult:
            if node in (failed or ()):
                return NodeResult(node=node, outcome="failed", message="exited with code 1")
            if self.killed:
                return NodeResult(node=node, outcome="failed", message="killed", signal="SIGKILL")
            return NodeResult(node=node, outcome="success")

        nodes = tuple(map(ended, self.nodes))
        self.result = DataflowResult(dataflow_id=self.dataflow_id, nodes=nodes)
        self._machine.report_runner(self)

    def change(self, nodes: tuple[CurrentNode, ...]) -> None:
        """Run other nodes."""
        self.nodes = tuple(one.node.id for one in nodes)
        self.redefine(revision=self.definitions.revision + 1, nodes=nodes)

    def redefine(self, **facts: Any) -> None:
        """Change what it reports about its nodes."""
        self.definitions = NodeDefinitions(**{**dict(self.definitions), **facts})


@dataclass
class SimulatedDaemon(InProcessMachine[SimulatedRunner]):
    """A machine with a daemon of a chosen version, and faults."""

    labels: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    """Other fields of its registration."""
    codec: bool = True
    """Messages and records pass through the codecs, which takes most of the time."""
    crash_in: int = 0
    """The daemon process is killed before this write, counted from now; 0: it is not."""
    broken_nodes: set[str] = field(default_factory=set)
    """Nodes that exit before they connect."""
    watches: list[StreamTopics] = field(default_factory=list)
    """Inspectors that it has started."""
    refuses: str | None = None
    """Why its runners refuse changes."""
    link_problem: str | None = None
    """Why links cannot listen on this machine."""

    def make_runner(self, record: PartRecord) -> SimulatedRunner:
        return SimulatedRunner(record, self)

    def timers(self) -> list[float]:
        """Return when `pass_time` has something to do."""
        if self.agent is None:
            return []
        away = [] if self.away_since is None else [self.away_since + OFFLINE_AFTER]
        return [*away, *(at for at, _ in self.due)]

    def send(self, message: DaemonMessage) -> None:
        if isinstance(message, Register):
            message = message.model_copy(update={"labels": self.labels, **self.versions})
        self.to_coordinator.append(TO_COORDINATOR.encode(message) if self.codec else message)

    def _execute(self, command: agent_commands.Command, now: float) -> None:
        if self.crash_in and isinstance(command, agent_commands.SavePart | agent_commands.DropPart):
            self.crash_in -= 1
            if not self.crash_in:
                self.agent = None
                self.runner_events.clear()
                return
        super()._execute(command, now)
        if self.codec and isinstance(command, agent_commands.SavePart):
            text = command.record.model_dump_json()
            self.disk[command.record.dataflow_id] = PartRecord.model_validate_json(text)

    def read(self, request: StreamLogs | StreamTopics) -> PartRecord | None:
        found = super().read(request)
        if found is not None and isinstance(request, StreamTopics):
            self.watches.append(request)
        return found

    def change(self, message: ChangePart, now: float, *, dies: bool = False) -> str | None:
        """Let the runner of a part change its nodes; ``dies``: the daemon is killed before it
        stores the change.
        """
        assert self.agent is not None
        record = self.agent.parts.record(message.dataflow_id)
        problem = self.refuses
        if record is None or record.attempt != message.attempt:
            problem = "the nodes on this machine are not running"
        if problem is not None or record is None:
            return problem
        (runner,) = self.living(message.dataflow_id)
        resolved = applied(record.spec.resolved, message.change)
        runner.change(tuple(CurrentNode(node=node) for node in resolved.nodes))
        if dies:
            self.agent = None
            return None
        flow, attempt = message.dataflow_id, message.attempt
        self.handle(LinkPart(dataflow_id=flow, attempt=attempt, links=message.links), now)
        self.handle(runner.nodes_read(), now)
        return None
