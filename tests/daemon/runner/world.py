"""A world of pretended processes around RunnerState: carries commands out, checks invariants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.runner import DataflowResult, RunnerEvent
from dora_daemon.runner.machine import commands as c
from dora_daemon.runner.machine import events as e
from dora_daemon.runner.machine.state import RunnerState

T = TypeVar("T")


@dataclass
class Process:
    """One pretended process of a node."""

    incarnation: int
    pid: int
    connected: bool = False
    going: bool = False
    """It was let through the start barrier."""
    signals: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


class World:
    """Nothing here happens by itself: a test says what happens, the commands are carried out."""

    def __init__(self, nodes: Iterable[ResolvedNode], **options: Any) -> None:
        self.specs = {n.id: n for n in nodes}
        self.state = RunnerState(self.specs.values(), dataflow_id="test", **options)
        self.now = 0.0
        self.processes: dict[str, Process] = {}
        self.timers: dict[tuple[str | None, str], float] = {}
        self.done: list[c.Command] = []
        self.spawns: list[c.SpawnNode] = []
        self.result: DataflowResult | None = None
        self.went = False
        self._pids = 100

    # --- what happens

    def start(self) -> World:
        self.handle(e.Prepared())
        return self

    def connect_all(self) -> World:
        """Every process that was spawned says Hello."""
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

    def stop(self, **how: Any) -> None:
        self.handle(e.StopRequested("stop requested", **how))

    def pass_time(self, seconds: float, *, busy: bool = False) -> None:
        """Let the clock run; timers fire in order."""
        until = self.now + seconds
        while due := sorted((at, str(k), k) for k, at in self.timers.items() if at <= until):
            at, _, key = due[0]
            self.now = max(self.now, at)
            del self.timers[key]
            self.handle(e.TimerFired(key[0], key[1], busy))
        self.now = until

    # --- what is done

    def handle(self, event: e.RunnerStimulus) -> list[c.Command]:
        commands = self.state.handle(event, self.now)
        for command in commands:
            self.done.append(command)
            self._do(command)
        self.check()
        return commands

    def _do(self, command: c.Command) -> None:
        match command:
            case c.SpawnNode(node=node, incarnation=number):
                assert node not in self.processes, f"{node} has a process already"
                assert all(number > s.incarnation for s in self.spawns)
                self.spawns.append(command)
                self._pids += 1
                self.processes[node] = Process(number, self._pids)
                self.handle(e.NodeSpawned(node, number, self._pids))
            case c.Admit(node=node, incarnation=number):
                self.processes[node].connected = True
                self.processes[node].incarnation = number
            case c.SendGo(nodes=nodes):
                self.went = True
                for node in nodes:
                    self.processes[node].going = True
            case c.SignalNode(node=node, signal=signal) if node in self.processes:
                self.processes[node].signals.append(signal)
            case c.SendStop(node=node, reason=reason) if node in self.processes:
                self.processes[node].stops.append(reason)
            case c.Refuse(node=node, message=message) if node in self.processes:
                self.processes[node].refusals.append(message)
            case c.ArmTimer(node=node, timer=timer, at=at):
                self.timers[node, timer] = at
            case c.CancelTimer(node=node, timer=timer):
                self.timers.pop((node, timer), None)
            case c.Finish(result=result):
                assert self.result is None, "finished twice"
                self.result = result

    def check(self) -> None:
        """What holds after every event."""
        state = self.state
        for node, life in state.nodes.items():
            process = self.processes.get(node)
            if life.ended:
                assert process is None, f"{node} ended with a living process"
                assert life.result is not None
            if process is not None and not life.dynamic:
                assert life.incarnation == process.incarnation
            if life.dynamic:
                assert not any(s.node == node for s in self.spawns)
        assert (self.result is not None) == (state.phase == "finished")
        if self.result is not None:
            static = {n for n, life in state.nodes.items() if not life.dynamic}
            assert {r.node for r in self.result.nodes} == static
            assert [r.order for r in self.result.nodes] == sorted(
                r.order for r in self.result.nodes
            )
            assert not any(n in static for n in self.processes)
            assert not any(t in ("terminate", "kill", "backoff") for _, t in self.timers)

    def of(self, kind: type[T]) -> list[T]:
        """Commands of one kind that were given so far."""
        return [command for command in self.done if isinstance(command, kind)]

    def reports(self, kind: type[T]) -> list[T]:
        """Events of one kind that were reported so far."""
        events: list[RunnerEvent] = [r.event for r in self.of(c.Report)]
        return [event for event in events if isinstance(event, kind)]

    def outcome(self, node: str) -> tuple[str, str]:
        """Outcome and message of a node that has ended."""
        result = self.state.nodes[node].result
        assert result is not None, f"{node} has not ended"
        return result.outcome, result.message
