"""State machine of one node; pure.

A dynamic node is ABSENT until a process attaches, and again after it has left. Every other node
goes PLANNED -> CONNECTING -> WAITING -> RUNNING -> ENDED; a restart leads through BACKING_OFF back
to CONNECTING, and a stop through STOPPING. Decisions about several nodes are in ``state``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import InvalidTransition
from dora_config.history.entries import kept_stderr
from dora_config.protocol import runner_events as reports
from dora_config.retry import Retry
from dora_daemon.runner.machine import commands as do, events
from dora_daemon.runner.machine.restart import GiveUp, restart_delay
from dora_daemon.runner.machine.verdict import (
    STOP_EXIT_CODES,
    SUCCESS,
    Ending,
    Verdict,
    cause_of,
    describe,
    judge,
    overwritten,
)
from dora_node_api.frozen import FrozenRecord, replace

REQUESTED = "restart requested"


class NodeState(Enum):
    """State inside the runner; docs/reference/states.md explains each value."""

    PLANNED = "planned"
    CONNECTING = "connecting"
    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKING_OFF = "backing off"
    ENDED = "ended"
    ABSENT = "absent"


_CONNECTED = (NodeState.WAITING, NodeState.RUNNING)
_STARTED = (NodeState.CONNECTING, *_CONNECTED)
STEADY_SECONDS: Final = 1.0
"""Seconds after which a program without inputs and outputs counts as started: it need not connect,
but an immediate failure is one of the start."""
_WITHOUT_PROCESS = (NodeState.PLANNED, NodeState.BACKING_OFF)


_FORCED = "the stop was forced"


class StopOrder(FrozenRecord):
    """Order to send STOP, SIGTERM after ``grace`` seconds, SIGKILL after half of that again.

    Grace 0 kills at once.
    """

    grace: float
    then: Literal["end", "restart", "replace"] = "end"
    successor: tuple[ResolvedNode, int] | None = None
    """New node of a replacement, and the incarnation of its staged process."""


@dataclass(slots=True)
class StopSequence:
    """Stop of a node's present process. Only STOP is sent to a dynamic node."""

    node: str
    dynamic: bool
    order: StopOrder | None = None
    """Last order; None while the process is to run."""
    kill_reason: str | None = None
    """Why SIGKILL was sent."""

    def reset(self) -> None:
        """Begin anew for another process."""
        self.order = None
        self.kill_reason = None

    def begin(self, order: StopOrder, now: float, *, connected: bool) -> list[do.Command]:
        """Send the first step of a stop."""
        self.order = order
        commands = do.cancel_timers(self.node)
        stop = do.SendStop(self.node, restarts=order.then != "end")
        if self.dynamic:
            return [*commands, stop]
        if order.grace <= 0:
            return [*commands, *self.kill(_FORCED)]
        if connected:
            commands.append(stop)
        else:
            # it cannot receive STOP yet; it may have no pid either
            commands.append(do.SignalNode(self.node, "SIGTERM"))
        return [*commands, do.ArmTimer(self.node, "terminate", now + order.grace)]

    def repeat(self, order: StopOrder, now: float) -> list[do.Command]:
        """Apply another order during the stop. An end has precedence over a restart."""
        assert self.order is not None
        commands: list[do.Command] = []
        if order.then == "end" or self.order.then == "end":
            if self.order.then != "end":
                commands.append(do.SendStop(self.node))  # ends a send that waits for room
            grace = min(order.grace, self.order.grace)
            order = replace(order, grace=grace, then="end", successor=None)
        self.order = order
        if self.dynamic:
            return commands
        if order.grace <= 0:
            return [*do.cancel_timers(self.node), *self.kill(_FORCED)]
        return [*commands, do.ArmTimer(self.node, "terminate", now + order.grace)]

    def terminate(self, now: float) -> list[do.Command]:
        """Send SIGTERM, later SIGKILL."""
        assert self.order is not None
        return [
            do.SignalNode(self.node, "SIGTERM"),
            do.ArmTimer(self.node, "kill", now + self.order.grace / 2),
        ]

    def kill_overdue(self) -> list[do.Command]:
        """Kill a process that reacted neither to STOP nor to SIGTERM."""
        waited = 0.0 if self.order is None else self.order.grace * 1.5
        return self.kill(f"it didn't react to a stop message in time ({waited:g} s)")

    def kill(self, reason: str) -> list[do.Command]:
        """Send SIGKILL; ``reason`` completes "was killed: ..."."""
        self.kill_reason = reason
        return [do.SignalNode(self.node, "SIGKILL")]


@dataclass(slots=True)
class StagedProcess:
    """A process with another program, which was started beside the running one."""

    staged: int | None = None
    """Incarnation of the process while it has not taken over."""
    outlived: events.NodeExited | None = None
    """The end of the running process, if the staged one is still to take over."""
    former: ResolvedNode | None = None
    """Definition to return to if the new process dies before it connects."""

    def outlives(self, exited: events.NodeExited) -> bool:
        """Note the end of the running process; return whether a staged one is to take over."""
        if self.staged is not None:
            self.outlived = exited
        return self.staged is not None

    def take_over(self, former: ResolvedNode) -> None:
        self.former = former
        self.staged = self.outlived = None

    def abandon(self, incarnation: int) -> events.NodeExited | None:
        """Continue without it; return the end of the process that it would have replaced."""
        if self.staged != incarnation:
            return None
        self.staged = None
        exited, self.outlived = self.outlived, None
        return exited


@dataclass(slots=True)
class NodeLifecycle:
    """One node. Only `RunnerMachine` changes it; status and requests read it."""

    spec: ResolvedNode
    _incarnations: Iterator[int]
    _next_order: Callable[[], int]
    stop_grace: float = 10.0
    finish_grace: float | None = 120.0
    """Seconds for a node to end after its inputs have ended and are empty; ``None``: no limit."""
    barrier_open: bool = False
    state: NodeState = NodeState.PLANNED
    incarnation: int = 0
    pid: int | None = None
    connected: bool = False
    steady: bool = False
    """Whether the process, a program without ports that need not connect, has run for
    `STEADY_SECONDS`."""
    ended_unconnected: bool = False
    """Whether the last process ended before it connected."""
    restarts: int = 0
    last_restart: tuple[str, float] | None = None
    """Cause in a few words, and time."""
    retry: Retry = field(default_factory=Retry)
    health_kills: int = 0
    stop: StopSequence = field(init=False)
    replacement: StagedProcess = field(default_factory=StagedProcess)
    inputs_ended: bool = False
    broken_by: str | None = None
    """Node that ended before it connected, so that the dataflow cannot start."""
    refused: bool = False
    """Whether the process was refused because of ``broken_by``."""
    result: reports.NodeResult | None = None

    def __post_init__(self) -> None:
        self.stop = StopSequence(self.id, self.dynamic)
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
    def up(self) -> bool:
        """Whether the node has started: it has connected, or has no ports and its process has run
        for `STEADY_SECONDS`."""
        return self.connected or self.steady

    @property
    def stopped(self) -> bool:
        """Whether a stop was requested for its present or last process."""
        return self.stop.order is not None

    @property
    def _restartable(self) -> bool:
        """Whether the node has a restart policy and a health check.

        Operator hosts and dynamic nodes do not.
        """
        return self.spec.kind not in ("runtime", "dynamic")

    def handle(self, event: events.NodeEvent, now: float) -> list[do.Command]:
        """Process one event. Raises InvalidTransition if it is impossible in this state."""
        match event:
            case events.NodeSpawned(pid=pid):
                if self.state in (NodeState.CONNECTING, NodeState.STOPPING):
                    return self._spawned(pid, now)
            case events.SpawnFailed(error=error):
                if self.state in (NodeState.CONNECTING, NodeState.STOPPING):
                    return self._end(Verdict("failed", f"failed to spawn node: {error}"))
            case events.NodeConnected():
                return self._hello(event)
            case events.NodeExited():
                if self.state in (*_STARTED, NodeState.STOPPING):
                    return self._exited(event, now)
            case events.NodeDetached():
                if self.state in (*_CONNECTED, NodeState.STOPPING):
                    return self._detached()
            case events.NodeStalled(seconds=seconds):
                return self._stalled(seconds) if self.state in _CONNECTED else []
            case events.NodeCorrupted(problem=problem):
                return self._corrupted(problem, now) if self.state in _CONNECTED else []
            case events.TimerFired():
                return self._timer(event, now)
            case events.ReplacementAbandoned(incarnation=number):
                return self._abandon(number, now)
            case events.ReplacementLost(incarnation=number):
                return self._replacement_lost(number, now)
        raise InvalidTransition(f'node "{self.id}"', self.state.value, event)

    def _timer(self, event: events.TimerFired, now: float) -> list[do.Command]:
        """Process a timer; ignore one that was armed for another state."""
        match self.state, event.timer:
            case NodeState.BACKING_OFF, "backoff":
                return self.spawn()
            case NodeState.CONNECTING, "startup":
                return self._kill(
                    f"it did not connect within {self.spec.startup_timeout:g} s (startup_timeout)"
                )
            case NodeState.CONNECTING, "steady":
                self.steady = True
                return []
            case NodeState.RUNNING, "finish":
                return self._overdue(event.busy, now)
            case NodeState.STOPPING, "terminate":
                return self.stop.terminate(now)
            case NodeState.STOPPING, "kill":
                return self.stop.kill_overdue()
            case _:
                return []

    # ----------------------------------------------------------------------------- starting

    def spawn(self) -> list[do.Command]:
        """Start a process."""
        self.incarnation = next(self._incarnations)
        self.state = NodeState.CONNECTING
        self.connected = self.steady = False
        self.pid = None
        self.replacement.outlived = None
        self.stop.reset()
        return [do.CancelTimer(self.id, "backoff"), do.SpawnNode(self.id, self.incarnation)]

    def _spawn_after_end(self, now: float) -> list[do.Command]:
        """Restart on request, regardless of the policy."""
        self.last_restart = (REQUESTED, now)
        self.result = None
        self.restarts += 1
        self.inputs_ended = False
        return self.spawn()

    def _spawned(self, pid: int, now: float) -> list[do.Command]:
        self.pid = pid
        number, restarts = self.incarnation, self.restarts
        report = reports.NodeSpawned(node=self.id, pid=pid, incarnation=number, restarts=restarts)
        commands: list[do.Command] = [do.ReportEvent(report)]
        if self.state is not NodeState.STOPPING and self.spec.startup_timeout is not None:
            commands.append(do.ArmTimer(self.id, "startup", now + self.spec.startup_timeout))
        if not self.spec.has_ports:
            commands.append(do.ArmTimer(self.id, "steady", now + STEADY_SECONDS))
        return commands

    def _hello(self, event: events.NodeConnected) -> list[do.Command]:
        if self.state is NodeState.CONNECTING:
            return self._connected(event.pid)
        if self.state is NodeState.ABSENT:
            number = event.incarnation
            self.incarnation = next(self._incarnations) if number is None else number
            return self._connected(event.pid)
        if self.broken_by is not None:
            return self._refuse(self.broken_by)
        return [do.Refuse(self.id, _why_refused(self, event.pid))]

    def _connected(self, pid: int) -> list[do.Command]:
        self.pid = pid
        if self.broken_by is not None:
            return self._refuse(self.broken_by)
        self.connected = True
        self.stop.order = None
        self.state = NodeState.RUNNING if self.barrier_open else NodeState.WAITING
        report = reports.NodeConnected(
            node=self.id, pid=pid, incarnation=self.incarnation, dynamic=self.dynamic
        )
        return [
            do.CancelTimer(self.id, "startup"),
            do.Admit(self.id, self.incarnation, self.restarts),
            do.ReportEvent(report),
        ]

    def open_barrier(self) -> None:
        """Note that the start barrier is open, which releases the node."""
        self.barrier_open = True
        if self.state is NodeState.WAITING:
            self.state = NodeState.RUNNING

    def break_barrier(self, cause: str, now: float) -> list[do.Command]:
        """End the node because ``cause`` ended before it connected: the dataflow cannot start."""
        if self.state not in (*_WITHOUT_PROCESS, NodeState.CONNECTING, NodeState.WAITING):
            return []
        self.broken_by = cause
        if self.state in _WITHOUT_PROCESS:
            return self._end_without_process(StopOrder(0.0))
        refusal = self._refuse(cause) if self.state is NodeState.WAITING else []
        if self.dynamic:
            return refusal
        self.state = NodeState.STOPPING
        self.stop.order = StopOrder(self.stop_grace)
        return [
            *refusal,
            do.CancelTimer(self.id, "startup"),
            do.ArmTimer(self.id, "terminate", now + self.stop_grace),
        ]

    def _refuse(self, cause: str) -> list[do.Command]:
        self.refused = True
        return [do.Refuse(self.id, broken_by(cause), cancelled=True)]

    def _detached(self) -> list[do.Command]:
        self._has_gone(NodeState.ABSENT)
        self.stop.order = None
        return do.announce_detached(self.id)

    def _has_gone(self, state: NodeState) -> None:
        """Forget the process, which has ended or left."""
        self.state = state
        self.connected = False
        self.pid = None

    # ----------------------------------------------------------------------------- stopping

    def order(self, order: StopOrder, now: float) -> list[do.Command]:
        """Apply an order to the process, or to a node without one."""
        if self.state in _STARTED:
            return self._stop(order, now)
        if self.state is NodeState.STOPPING:
            return self.stop.repeat(order, now)
        if order.successor is not None and self.replacement.outlived is not None:
            return self._replace(*order.successor, now)
        if order.then == "end":
            return self._end_without_process(order) if self.state in _WITHOUT_PROCESS else []
        if order.then == "restart" and self.state is NodeState.BACKING_OFF:
            return self.spawn()
        if order.then == "restart" and self.state is NodeState.ENDED:
            return self._spawn_after_end(now)
        raise InvalidTransition(f'node "{self.id}"', self.state.value, order)

    def _stop(self, order: StopOrder, now: float) -> list[do.Command]:
        was_connected = self.state is not NodeState.CONNECTING
        self.state = NodeState.STOPPING
        return self.stop.begin(order, now, connected=was_connected)

    def _kill(self, reason: str) -> list[do.Command]:
        """Kill the process as a failure of the node, so that its restart policy applies."""
        return [do.EmitLog("warn", f"killing the node: {reason}", self.id), *self.stop.kill(reason)]

    def _end_without_process(self, order: StopOrder) -> list[do.Command]:
        self.stop.order = order
        return [do.CancelTimer(self.id, "backoff"), *self._end(SUCCESS)]

    # ------------------------------------------------------------------------------ running

    def _stalled(self, seconds: float) -> list[do.Command]:
        if not self._restartable:
            return []
        self.health_kills += 1
        limit = self.spec.health_check_timeout or 0.0
        return self._kill(
            f"its process could not run for {seconds:.1f} s: stopped, frozen or stuck in the kernel"
            f" (health_check_timeout {limit:g} s)"
        )

    def _corrupted(self, problem: str, now: float) -> list[do.Command]:
        reason = overwritten(problem)
        if not self.dynamic:
            return self._kill(reason)
        log = do.EmitLog("error", f"stopping the node: {reason}", self.id)
        return [log, *self._stop(StopOrder(self.stop_grace), now)]

    def end_inputs(self, now: float) -> list[do.Command]:
        """Note that all inputs have ended; stop the node later unless it ends by itself."""
        if self.state not in _CONNECTED:
            return []
        self.inputs_ended = True
        if self.finish_grace is None or self.dynamic:
            return []
        return [do.ArmTimer(self.id, "finish", now + self.finish_grace)]

    def _overdue(self, busy: bool, now: float) -> list[do.Command]:
        assert self.finish_grace is not None
        if busy:
            # it still processes messages that were sent before its inputs ended
            return [do.ArmTimer(self.id, "finish", now + max(0.1, self.finish_grace))]
        text = (
            f"stopping the node: it still runs {self.finish_grace:g} s after all its inputs ended"
            " (finish_grace_secs)"
        )
        log = do.EmitLog("warn", text, self.id)
        return [log, *self._stop(StopOrder(self.stop_grace), now)]

    # ------------------------------------------------------------------------------ the end

    def _exited(self, event: events.NodeExited, now: float) -> list[do.Command]:
        if self.stop.order is None and self.replacement.outlives(event):
            self._has_gone(NodeState.BACKING_OFF)
            return do.cancel_timers(self.id)
        ending = Ending(
            event.exit,
            stop_requested=self.stop.order is not None,
            kill_reason=self.stop.kill_reason,
            before_connecting=not self.connected,
            must_connect=self.spec.has_ports,
            explanation=event.explanation,
        )
        verdict = judge(ending)
        order = self.stop.order
        if order is not None and order.then == "restart":
            self.last_restart = (REQUESTED, now)
            return self._restart(0.0, REQUESTED, now)
        if order is not None and order.successor is not None:
            return self._replace(*order.successor, now)
        if order is not None or not self._restartable:
            return self._end(verdict, event.stderr_tail, event.exit)
        delay = restart_delay(
            self.spec.restart,
            self.retry,
            failed=verdict.outcome == "failed",
            inputs_ended=self.inputs_ended and event.drained,
            now=now,
        )
        message = verdict.message or describe(event.exit)
        match delay:
            case float():
                self.last_restart = (cause_of(ending), now)
                failed = verdict.outcome == "failed"
                tail = kept_stderr(event.stderr_tail) if failed else ()
                return self._restart(delay, message, now, failed=failed, tail=tail)
            case GiveUp(reason=reason):
                verdict = Verdict("failed", f"{message}; {reason}")
                log = do.EmitLog("error", reason, self.id)
                return [log, *self._end(verdict, event.stderr_tail, event.exit)]
            case None:
                return self._end(verdict, event.stderr_tail, event.exit)

    def _restart(
        self,
        delay: float,
        reason: str,
        now: float,
        *,
        failed: bool = False,
        tail: tuple[str, ...] = (),
    ) -> list[do.Command]:
        self.restarts += 1
        self._has_gone(NodeState.BACKING_OFF)
        report = reports.NodeRestarting(
            node=self.id,
            reason=reason,
            delay=delay,
            restarts=self.restarts,
            failed=failed,
            stderr_tail=tail,
        )
        commands = do.announce_restart(report)
        if delay > 0:
            return [*commands, do.ArmTimer(self.id, "backoff", now + delay)]
        return [*commands, *self.spawn()]

    def _replace(self, spec: ResolvedNode, incarnation: int, now: float) -> list[do.Command]:
        self.last_restart = ("replaced", now)
        self.replacement.take_over(self.spec)
        self.spec = spec
        self.incarnation = incarnation
        self.restarts += 1
        self.retry.reset()
        self.state = NodeState.CONNECTING
        self.connected = False
        self.stop.reset()
        report = reports.NodeRestarting(
            node=self.id, reason="replaced", delay=0.0, restarts=self.restarts, failed=False
        )
        return [*do.announce_restart(report), do.PromoteReplacement(self.id, incarnation)]

    def stage(self, incarnation: int) -> list[do.Command]:
        """Start a process with another program beside the running one."""
        self.replacement.staged = incarnation
        return [do.StageReplacement(self.id, incarnation)]

    def _abandon(self, incarnation: int, now: float) -> list[do.Command]:
        """Continue without a replacement; the old process may have ended meanwhile."""
        exited = self.replacement.abandon(incarnation)
        if exited is None or self.state is not NodeState.BACKING_OFF:
            return []
        self.connected = True
        return self._exited(exited, now)

    def _replacement_lost(self, incarnation: int, now: float) -> list[do.Command]:
        """Start the former program again."""
        if self.state is not NodeState.CONNECTING or self.incarnation != incarnation:
            return []
        assert self.replacement.former is not None
        self.spec = self.replacement.former
        return self._restart(0.0, "its replacement ended before it took over", now)

    def _end(
        self, verdict: Verdict, tail: tuple[str, ...] = (), status: events.Exit | None = None
    ) -> list[do.Command]:
        self.result = _result(self, verdict, tail, status or events.Exit(), self._next_order())
        self.ended_unconnected = not self.connected
        self._has_gone(NodeState.ENDED)
        return do.announce_end(self.result)


def broken_by(cause: str) -> str:
    """Return why nodes are stopped when node ``cause`` has broken the start barrier."""
    return f'node "{cause}" exited before connecting, so the dataflow cannot start'


def _why_refused(node: NodeLifecycle, pid: int) -> str:
    """Return the message to a process that sent Hello although the node has one."""
    if node.dynamic:
        return f'node "{node.id}" is already attached (pid {node.pid})'
    if not node.connected:
        return f'node "{node.id}" is {node.state.value}'
    if pid == node.pid:
        return (
            f'this process has left the dataflow as node "{node.id}": its last Node object was'
            " closed or garbage collected, which closed all outputs and inputs; keep a"
            " reference to the first Node while the process takes part"
        )
    return (
        f'node "{node.id}" is already connected as process {node.pid}; a node is one'
        " process, and its children must exchange data with it by other means"
    )


def _result(
    node: NodeLifecycle, verdict: Verdict, tail: tuple[str, ...], exited: events.Exit, order: int
) -> reports.NodeResult:
    own_error = exited.code and exited.code not in STOP_EXIT_CODES.values()
    cascading = node.broken_by is not None and (node.refused or not own_error)
    return reports.NodeResult(
        node=node.id,
        outcome="cascading" if cascading else verdict.outcome,
        message=broken_by(node.broken_by or "") if cascading else verdict.message,
        caused_by=node.broken_by if cascading else None,
        exit_code=exited.code,
        signal=exited.signal,
        stderr_tail=() if verdict.outcome == "success" else tail,
        restarts=node.restarts,
        order=order,
    )
