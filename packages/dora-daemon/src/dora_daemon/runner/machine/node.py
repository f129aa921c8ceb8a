"""The life of one node, read as a table: (state, event) to the next state and commands; pure.

A dynamic node is ABSENT until a process attaches, and again after it has left. Every other node
goes PLANNED -> CONNECTING -> WAITING -> RUNNING -> ENDED; a restart leads through BACKING_OFF to
CONNECTING again, and a stop through STOPPING. What concerns several nodes is in ``state``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from dora_config import InvalidTransition
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.runner_events import NodeConnected as ConnectedReport
from dora_config.protocol.runner_events import NodeEnded, NodeFailed, NodeRestarting, NodeResult
from dora_config.protocol.runner_events import NodeSpawned as SpawnedReport
from dora_daemon.runner.machine.commands import (
    Admit,
    AnnounceClosed,
    AnnounceFailed,
    AnnounceRestarted,
    ArmTimer,
    CancelTimer,
    Command,
    DropInputs,
    Refuse,
    Report,
    Say,
    SendStop,
    SignalNode,
    SpawnNode,
    TakeOver,
)
from dora_daemon.runner.machine.events import (
    Exit,
    NodeConnected,
    NodeDetached,
    NodeExited,
    NodeSilent,
    NodeSpawned,
    SpawnFailed,
    TimerFired,
)
from dora_daemon.runner.machine.restart import GiveUp, RestartAfter, RestartHistory, decide
from dora_daemon.runner.machine.verdict import (
    ENDED_AS_ASKED,
    Ending,
    Verdict,
    cause_of,
    describe,
    judge,
)
from dora_node_api.frozen import Frozen, replace


class NodeState(Enum):
    """What users see of these is in ``status``; a sentence each in docs/reference/states.md."""

    PLANNED = "planned"
    CONNECTING = "connecting"
    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKING_OFF = "backing off"
    ENDED = "ended"
    ABSENT = "absent"


Next = Literal["end", "restart", "replace"]


class Spawn(Frozen):
    """Start the node's process now."""


class StopAsked(Frozen):
    """Stop the node: STOP, after ``grace`` SIGTERM, half as long later SIGKILL; 0 kills at once."""

    grace: float
    then: Next = "end"
    reason: str = "MANUAL"
    why: str = "stop requested"
    successor: tuple[ResolvedNode, int] | None = None
    """To replace it: what comes instead, and the incarnation that waits."""


class BarrierOpened(Frozen):
    """Every node has connected."""


class BarrierBroke(Frozen):
    """``cause`` ended before it connected, so the dataflow does not start."""

    cause: str
    grace: float


class InputsEnded(Frozen):
    """All inputs are closed: the node is expected to end by itself."""


NodeEvent = (
    Spawn
    | NodeSpawned
    | SpawnFailed
    | NodeConnected
    | BarrierOpened
    | BarrierBroke
    | NodeExited
    | NodeDetached
    | NodeSilent
    | StopAsked
    | InputsEnded
    | TimerFired
)

REQUESTED = "restart requested"

ALIVE = (NodeState.CONNECTING, NodeState.WAITING, NodeState.RUNNING)


@dataclass(slots=True)
class NodeLife:
    """One node. Changed through :meth:`handle` only."""

    spec: ResolvedNode
    next_incarnation: Callable[[], int]
    next_order: Callable[[], int]
    stop_grace: float = 10.0
    finish_grace: float | None = 120.0
    """Seconds a node may live on after its inputs ended and were emptied; ``None``: for ever."""
    barrier_open: bool = False
    must_connect: bool = True
    """Ending with exit code 0 before connecting is a failure."""
    state: NodeState = NodeState.PLANNED
    incarnation: int = 0
    pid: int | None = None
    connected: bool = False
    ended_unconnected: bool = False
    """Its last process ended before it connected."""
    restarts: int = 0
    last_restart: tuple[str, float] | None = None
    """The cause in a few words, and when."""
    history: RestartHistory = field(default_factory=RestartHistory)
    health_kills: int = 0
    stopping: StopAsked | None = None
    killed_because: str | None = None
    inputs_ended: bool = False
    broken_by: str | None = None
    """The node whose end before connecting keeps the dataflow from starting."""
    refused: bool = False
    """The process was told so."""
    result: NodeResult | None = None

    def __post_init__(self) -> None:
        if self.spec.is_dynamic:
            self.state = NodeState.ABSENT

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def dynamic(self) -> bool:
        return self.spec.is_dynamic

    @property
    def ended(self) -> bool:
        return self.state is NodeState.ENDED

    @property
    def restartable(self) -> bool:
        """Operator hosts and dynamic nodes are never restarted by policy, nor health-checked."""
        return self.spec.kind not in ("runtime", "dynamic")

    def handle(self, event: NodeEvent, now: float) -> list[Command]:
        """Take in one event; raises InvalidTransition for one that cannot happen in this state."""
        match self.state, event:
            # --- starting
            case NodeState.PLANNED | NodeState.BACKING_OFF, Spawn():
                return self._spawn()
            case NodeState.BACKING_OFF, TimerFired(timer="backoff"):
                return self._spawn()
            case ((NodeState.CONNECTING | NodeState.STOPPING), NodeSpawned(pid=pid)):
                return self._spawned(pid, now)
            case ((NodeState.CONNECTING | NodeState.STOPPING), SpawnFailed(error=error)):
                return self._end(Verdict("failed", f"failed to spawn node: {error}"))
            case NodeState.CONNECTING, NodeConnected(pid=pid):
                return self._connected(pid)
            case NodeState.CONNECTING, TimerFired(timer="startup"):
                return self._kill(
                    f"it did not connect within {self.spec.startup_timeout:g} s (startup_timeout)"
                )
            case NodeState.WAITING, BarrierOpened():
                self.barrier_open = True
                self.state = NodeState.RUNNING
                return []
            case ((NodeState.WAITING | NodeState.CONNECTING), BarrierBroke()):
                return self._barrier_broke(event, now)
            # --- attaching
            case NodeState.ABSENT, NodeConnected(incarnation=number, pid=pid):
                self.incarnation = self.next_incarnation() if number is None else number
                return self._connected(pid)
            case ((NodeState.WAITING | NodeState.RUNNING | NodeState.STOPPING), NodeDetached()):
                return self._detached()
            # --- stopping
            case ((NodeState.CONNECTING | NodeState.WAITING | NodeState.RUNNING), StopAsked()):
                return self._stop(event, now)
            case NodeState.STOPPING, StopAsked():
                return self._stop_again(event, now)
            case ((NodeState.PLANNED | NodeState.BACKING_OFF), StopAsked(then="end")):
                return self._end_without_process(event)
            case NodeState.BACKING_OFF, StopAsked(then="restart"):
                return self._spawn()
            case NodeState.ENDED, StopAsked(then="restart"):
                return self._spawn_after_end(now)
            case NodeState.STOPPING, TimerFired(timer="terminate"):
                return self._terminate(now)
            case NodeState.STOPPING, TimerFired(timer="kill"):
                return self._kill_straggler()
            # --- what may happen to a running node
            case ((NodeState.WAITING | NodeState.RUNNING), NodeSilent(seconds=seconds)):
                return self._silent(seconds)
            case ((NodeState.WAITING | NodeState.RUNNING), InputsEnded()):
                return self._inputs_ended(now)
            case NodeState.RUNNING, TimerFired(timer="finish", busy=busy):
                return self._overdue(busy, now)
            # --- the end
            case (
                (NodeState.CONNECTING | NodeState.WAITING | NodeState.RUNNING | NodeState.STOPPING),
                NodeExited(),
            ):
                return self._exited(event, now)
            # --- late or needless, and harmless
            case _, (
                BarrierOpened()
                | BarrierBroke()
                | InputsEnded()
                | TimerFired()
                | NodeSilent()
                | StopAsked(then="end")
            ):
                return []
            case _, NodeConnected(pid=pid):
                return self._turn_down(pid)
            case _:
                raise InvalidTransition(f'node "{self.id}"', self.state.value, event)

    # ----------------------------------------------------------------------------- starting

    def _spawn(self) -> list[Command]:
        self.incarnation = self.next_incarnation()
        self.state = NodeState.CONNECTING
        self.connected = False
        self.pid = None
        self.stopping = None
        self.killed_because = None
        return [
            CancelTimer(self.id, "backoff"),
            SpawnNode(self.id, self.incarnation, self.restarts),
        ]

    def _spawn_after_end(self, now: float) -> list[Command]:
        """By hand, whatever the policy says."""
        self.last_restart = (REQUESTED, now)
        self.result = None
        self.restarts += 1
        self.inputs_ended = False
        return self._spawn()

    def _spawned(self, pid: int, now: float) -> list[Command]:
        self.pid = pid
        commands: list[Command] = [
            Report(
                SpawnedReport(
                    node=self.id,
                    pid=pid,
                    incarnation=self.incarnation,
                    restarts=self.restarts,
                )
            )
        ]
        if self.state is NodeState.STOPPING:
            return [*commands, SignalNode(self.id, "SIGTERM")]
        if self.spec.startup_timeout is not None:
            commands.append(ArmTimer(self.id, "startup", now + self.spec.startup_timeout))
        return commands

    def _connected(self, pid: int) -> list[Command]:
        self.pid = pid
        if self.broken_by is not None:
            return self._refuse(self.broken_by)
        self.connected = True
        self.stopping = None
        self.state = NodeState.RUNNING if self.barrier_open else NodeState.WAITING
        return [
            CancelTimer(self.id, "startup"),
            Admit(self.id, self.incarnation),
            Report(
                ConnectedReport(
                    node=self.id, pid=pid, incarnation=self.incarnation, dynamic=self.dynamic
                )
            ),
        ]

    def _barrier_broke(self, event: BarrierBroke, now: float) -> list[Command]:
        self.broken_by = event.cause
        refusal = self._refuse(event.cause) if self.state is NodeState.WAITING else []
        if self.dynamic:
            return refusal
        self.state = NodeState.STOPPING
        self.stopping = StopAsked(event.grace, why=_broke(event.cause))
        return [
            *refusal,
            CancelTimer(self.id, "startup"),
            ArmTimer(self.id, "terminate", now + event.grace),
        ]

    def _turn_down(self, pid: int) -> list[Command]:
        if self.broken_by is not None:
            return self._refuse(self.broken_by)
        if self.connected and pid == self.pid and not self.dynamic:
            sentence = (
                f'this process has left the dataflow as node "{self.id}": its last Node object was'
                " closed or garbage collected, which closed the outputs and inputs; keep the first"
                " Node for as long as the process takes part"
            )
            return [Refuse(self.id, sentence)]
        if self.connected and not self.dynamic:
            sentence = (
                f'node "{self.id}" is connected already, as process {self.pid}; a node is one'
                " process, and its children exchange data with it by other means"
            )
            return [Refuse(self.id, sentence)]
        if self.dynamic:
            return [Refuse(self.id, f'node "{self.id}" is attached already (pid {self.pid})')]
        return [Refuse(self.id, f'node "{self.id}" is {self.state.value}')]

    def _refuse(self, cause: str) -> list[Command]:
        self.refused = True
        return [Refuse(self.id, _broke(cause))]

    def _detached(self) -> list[Command]:
        self.state = NodeState.ABSENT
        self.connected = False
        self.pid = None
        self.stopping = None
        return [
            *self._cancel_timers(),
            DropInputs(self.id),
            AnnounceClosed(self.id),
            Report(NodeEnded(node=self.id, dynamic=True)),
        ]

    # ----------------------------------------------------------------------------- stopping

    def _stop(self, event: StopAsked, now: float) -> list[Command]:
        was_connected = self.state is not NodeState.CONNECTING
        self.state = NodeState.STOPPING
        self.stopping = event
        commands = self._cancel_timers()
        if self.dynamic:
            return [*commands, SendStop(self.id, event.reason)]
        if event.grace <= 0:
            return [*commands, *self._send_kill("the stop was forced")]
        if was_connected:
            commands.append(SendStop(self.id, event.reason))
        elif self.pid is not None:
            # STOP cannot reach it, so there is nothing to wait for.
            commands.append(SignalNode(self.id, "SIGTERM"))
        return [*commands, ArmTimer(self.id, "terminate", now + event.grace)]

    def _stop_again(self, event: StopAsked, now: float) -> list[Command]:
        assert self.stopping is not None
        if event.then == "end" or self.stopping.then == "end":
            event = replace(event, grace=min(event.grace, self.stopping.grace), then="end")
            event = replace(event, successor=None)
        self.stopping = event
        if self.dynamic:
            return []
        if event.grace <= 0:
            return [*self._cancel_timers(), *self._send_kill("the stop was forced")]
        return [ArmTimer(self.id, "terminate", now + event.grace)]

    def _terminate(self, now: float) -> list[Command]:
        assert self.stopping is not None
        return [
            SignalNode(self.id, "SIGTERM"),
            ArmTimer(self.id, "kill", now + self.stopping.grace / 2),
        ]

    def _kill_straggler(self) -> list[Command]:
        assert self.stopping is not None
        waited = self.stopping.grace * 1.5
        return self._send_kill(f"it didn't react to a stop message in time ({waited:g} s)")

    def _send_kill(self, because: str) -> list[Command]:
        self.killed_because = because
        return [SignalNode(self.id, "SIGKILL")]

    def _kill(self, because: str) -> list[Command]:
        """A kill that counts as a failure of the node: its policy applies."""
        return [Say("warn", f"killing the node: {because}", self.id), *self._send_kill(because)]

    def _end_without_process(self, event: StopAsked) -> list[Command]:
        self.stopping = event
        return [CancelTimer(self.id, "backoff"), *self._end(Verdict("success"))]

    # ------------------------------------------------------------------------------ running

    def _silent(self, seconds: float) -> list[Command]:
        if not self.restartable:
            return []
        self.health_kills += 1
        limit = self.spec.health_check_timeout or 0.0
        return self._kill(
            f"its process could not run for {seconds:.1f} s: stopped, frozen or stuck in the kernel"
            f" (health_check_timeout {limit:g} s)"
        )

    def _inputs_ended(self, now: float) -> list[Command]:
        self.inputs_ended = True
        if self.finish_grace is None or self.dynamic:
            return []
        return [ArmTimer(self.id, "finish", now + self.finish_grace)]

    def _overdue(self, busy: bool, now: float) -> list[Command]:
        assert self.finish_grace is not None
        if busy:
            # It still works through what came before its inputs ended.
            return [ArmTimer(self.id, "finish", now + max(0.1, self.finish_grace))]
        said = Say(
            "warn",
            f"still runs {self.finish_grace:g} s after all its inputs ended (finish_grace_secs);"
            " stopping it",
            self.id,
        )
        return [said, *self._stop(StopAsked(self.stop_grace, why="all inputs ended"), now)]

    # ------------------------------------------------------------------------------ the end

    def _exited(self, event: NodeExited, now: float) -> list[Command]:
        ending = Ending(
            event.exit,
            stop_asked=self.stopping is not None,
            killed_because=self.killed_because,
            before_connecting=not self.connected,
            must_connect=self.must_connect,
            explanation=event.explanation,
        )
        verdict = judge(ending)
        if self.stopping is not None and self.stopping.then == "restart":
            return self._restart(0.0, REQUESTED, now)
        if self.stopping is not None and self.stopping.successor is not None:
            return self._replace(*self.stopping.successor, now)
        if self.stopping is None and self.restartable:
            decision = decide(
                self.spec.restart,
                self.history,
                failed=verdict.outcome == "failed",
                inputs_ended=self.inputs_ended and event.drained,
                now=now,
            )
            match decision:
                case RestartAfter(delay=delay, history=history):
                    self.history = history
                    why = verdict.message or describe(event.exit)
                    return self._restart(delay, why, now, cause=cause_of(ending))
                case GiveUp(reason=reason):
                    verdict = Verdict(
                        "failed", f"{verdict.message or describe(event.exit)}; {reason}"
                    )
                    said = Say("error", reason, self.id)
                    return [said, *self._end(verdict, event.stderr_tail, event.exit)]
        return self._end(verdict, event.stderr_tail, event.exit)

    def _restart(
        self, delay: float, reason: str, now: float, *, cause: str | None = None
    ) -> list[Command]:
        self.last_restart = (cause or reason, now)
        self.restarts += 1
        self.connected = False
        self.pid = None
        self.state = NodeState.BACKING_OFF
        commands: list[Command] = [
            *self._cancel_timers(),
            AnnounceRestarted(self.id),
            Report(
                NodeRestarting(node=self.id, reason=reason, delay=delay, restarts=self.restarts)
            ),
        ]
        if delay > 0:
            return [*commands, ArmTimer(self.id, "backoff", now + delay)]
        return [*commands, *self._spawn()]

    def _replace(self, spec: ResolvedNode, incarnation: int, now: float) -> list[Command]:
        self.last_restart = ("replaced", now)
        self.spec = spec
        self.incarnation = incarnation
        self.restarts += 1
        self.history = RestartHistory()
        self.state = NodeState.CONNECTING
        self.connected = False
        self.stopping = None
        self.killed_because = None
        return [
            *self._cancel_timers(),
            AnnounceRestarted(self.id),
            Report(
                NodeRestarting(node=self.id, reason="replaced", delay=0.0, restarts=self.restarts)
            ),
            TakeOver(self.id, incarnation),
        ]

    def _end(
        self, verdict: Verdict, tail: tuple[str, ...] = (), status: Exit | None = None
    ) -> list[Command]:
        exited = status or Exit()
        cascading = self.broken_by is not None and not self._failed_by_itself(exited)
        self.result = NodeResult(
            node=self.id,
            outcome="cascading" if cascading else verdict.outcome,
            message=_broke(self.broken_by or "") if cascading else verdict.message,
            caused_by=self.broken_by if cascading else None,
            exit_code=exited.code,
            signal=exited.signal,
            stderr_tail=() if verdict.outcome == "success" else tail,
            restarts=self.restarts,
            order=self.next_order(),
        )
        self.state = NodeState.ENDED
        self.ended_unconnected = not self.connected
        self.connected = False
        self.pid = None
        commands: list[Command] = [*self._cancel_timers(), DropInputs(self.id)]
        if self.result.outcome == "success":
            return [*commands, AnnounceClosed(self.id), Report(NodeEnded(node=self.id))]
        return [
            *commands,
            AnnounceFailed(self.id, self.result.message),
            AnnounceClosed(self.id),
            Report(NodeFailed(result=self.result)),
        ]

    def _failed_by_itself(self, exited: Exit) -> bool:
        """It was never told that another node failed, and ended with an error of its own."""
        return not self.refused and bool(exited.code) and exited.code not in ENDED_AS_ASKED.values()

    def _cancel_timers(self) -> list[Command]:
        names = ("startup", "finish", "terminate", "kill", "backoff")
        return [CancelTimer(self.id, name) for name in names]


def _broke(cause: str) -> str:
    return f'node "{cause}" exited before connecting, so the dataflow cannot start'
