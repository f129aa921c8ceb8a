"""Simulated processes around RunnerState: executes its commands and checks invariants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from support.runner.nodes import node as resolved

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner import DataflowResult, RunnerEvent
from dora_daemon.runner.machine import commands as c, events as e
from dora_daemon.runner.machine.node import NodeLifecycle
from dora_daemon.runner.machine.state import RunnerMachine

T = TypeVar("T")
_OWN = ("default_finish_grace", "log_dir")
"""Settings that no plan contains."""


@dataclass
class Process:
    """One simulated process of a node."""

    incarnation: int
    pid: int
    connected: bool = False
    released: bool = False
    """It was sent Go."""
    signals: list[str] = field(default_factory=list)
    stops: int = 0
    refusals: list[str] = field(default_factory=list)


class Simulation:
    """Executes commands; all other events come from the test."""

    def __init__(self, nodes: Iterable[ResolvedNode], **settings: Any) -> None:
        own = {key: settings.pop(key) for key in _OWN if key in settings}
        settings = {"dataflow_id": "test", "working_dir": "/", **settings}
        plan = RunPlan(resolved=ResolvedDataflow(nodes=()), **settings)
        self.state = RunnerMachine(nodes, plan, **own)
        self.now = 0.0
        self.processes: dict[str, Process] = {}
        self.timers: dict[tuple[str | None, e.TimerName], float] = {}
        self.done: list[c.Command] = []
        self.spawns: list[c.SpawnNode] = []
        self.result: DataflowResult | None = None
        self.started = False
        self._pids = 100

    # ----------------------------------------------------------------------------- events

    def start(self) -> Simulation:
        self.handle(e.Prepared())
        return self

    def connect_all(self) -> Simulation:
        """Let every process send Hello."""
        for node in list(self.processes):
            if node in self.processes and not self.processes[node].connected:
                self.connect(node)
        return self

    def connect(self, node: str) -> None:
        process = self.processes[node]
        self.handle(e.NodeConnected(node, process.incarnation, process.pid))

    def attach(self, node: str) -> None:
        self._pids += 1
        self.processes[node] = Process(0, self._pids)
        self.handle(e.NodeConnected(node, None, self._pids))

    def detach(self, node: str) -> None:
        process = self.processes.pop(node)
        self.handle(e.NodeDetached(node, process.incarnation))

    def exit(self, node: str, code: int = 0, *, drained: bool = True) -> None:
        self._exit(node, e.Exit(code=code), drained)

    def die(self, node: str, signal: str, *, drained: bool = True) -> None:
        self._exit(node, e.Exit(signal=signal), drained)

    def _exit(self, node: str, status: e.Exit, drained: bool) -> None:
        process = self.processes.pop(node)
        tail = ("last words",)
        self.handle(
            e.NodeExited(node, process.incarnation, status, drained=drained, stderr_tail=tail)
        )

    def stop(self, **options: Any) -> None:
        self.handle(e.RunStopRequested("stop requested", **options))

    def pass_time(self, seconds: float, *, busy: bool = False) -> None:
        """Advance the clock; timers fire in order."""
        until = self.now + seconds
        while due := sorted((at, str(k), k) for k, at in self.timers.items() if at <= until):
            at, _, key = due[0]
            self.now = max(self.now, at)
            del self.timers[key]
            self.handle(e.TimerFired(key[0], key[1], busy))
        self.now = until

    # --------------------------------------------------------------------------- commands

    def handle(self, event: e.StateEvent) -> list[c.Command]:
        commands = self.state.handle(event, self.now)
        for command in commands:
            self.done.append(command)
            self._execute(command)
        self.check()
        return commands

    def _execute(self, command: c.Command) -> None:
        match command:
            case c.SpawnNode(node=node, incarnation=number):
                assert node not in self.processes, f"{node} already has a process"
                assert all(number > s.incarnation for s in self.spawns)
                self.spawns.append(command)
                self._pids += 1
                self.processes[node] = Process(number, self._pids)
                self.handle(e.NodeSpawned(node, number, self._pids))
            case c.Admit(node=node, incarnation=number):
                self.processes[node].connected = True
                self.processes[node].incarnation = number
            case c.SendGo(nodes=nodes):
                self.started = True
                for node in nodes:
                    self.processes[node].released = True
            case c.SignalNode(node=node, signal=signal) if node in self.processes:
                self.processes[node].signals.append(signal)
            case c.SendStop(node=node) if node in self.processes:
                self.processes[node].stops += 1
            case c.Refuse(node=node, message=message) if node in self.processes:
                self.processes[node].refusals.append(message)
            case c.ArmTimer(node=node, timer=timer, at=at):
                self.timers[node, timer] = at
            case c.CancelTimer(node=node, timer=timer):
                self.timers.pop((node, timer), None)
            case c.FinishDataflow(result=result):
                assert self.result is None, "finished twice"
                self.result = result

    def check(self) -> None:
        """Check the invariants that hold after every event."""
        nodes = self.state.nodes()
        for node in nodes:
            process = self.processes.get(node.id)
            if node.ended:
                assert process is None, f"{node.id} ended with a living process"
                assert node.result is not None
            if process is not None and not node.dynamic:
                assert node.incarnation == process.incarnation
            if node.dynamic:
                assert not any(s.node == node.id for s in self.spawns)
        assert (self.result is not None) == (self.state.phase == "finished")
        if self.result is not None:
            static = {node.id for node in nodes if not node.dynamic}
            assert {r.node for r in self.result.nodes} == static
            order = [r.order for r in self.result.nodes]
            assert order == sorted(order)
            assert not any(node in static for node in self.processes)
            assert not any(t in ("terminate", "kill", "backoff") for _, t in self.timers)

    # ---------------------------------------------------------------------------- reading

    def node(self, node: str) -> NodeLifecycle:
        found = self.state.node(node)
        assert found is not None
        return found

    def of(self, kind: type[T]) -> list[T]:
        """Return the commands of one kind so far."""
        return [command for command in self.done if isinstance(command, kind)]

    def logs(self) -> list[str]:
        """Return the log lines so far."""
        return [command.message for command in self.of(c.EmitLog)]

    def reports(self, kind: type[T]) -> list[T]:
        """Return the reported events of one kind so far."""
        events: list[RunnerEvent] = [r.event for r in self.of(c.ReportEvent)]
        return [event for event in events if isinstance(event, kind)]

    def outcome(self, node: str) -> tuple[str, str]:
        """Return outcome and message of an ended node."""
        result = self.node(node).result
        assert result is not None, f"{node} has not ended"
        return result.outcome, result.message


def pair() -> Simulation:
    """A source and a sink that both run."""
    sim = Simulation([resolved("a", outputs="x"), resolved("b", reads="a/x")])
    return sim.start().connect_all()
