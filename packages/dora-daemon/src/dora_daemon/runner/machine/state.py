"""The one door to a dataflow's state: RunnerState.handle(event, now) -> commands; pure.

Here is what concerns several nodes: the start barrier, cascading failures, inputs that end, the
stop of the whole dataflow, and its result. The life of a single node is in ``node``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Literal, assert_never

from dora_config.dataflow.resolved import DEFAULT_FINISH_GRACE, ResolvedNode
from dora_config.protocol.runner_events import (
    DataflowFinished,
    DataflowResult,
    DataflowStarted,
    DataflowStopping,
    NodeResult,
    NodesReady,
    WaitingChanged,
)
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine.commands import (
    AnnounceClosed,
    AnnounceClosedAgain,
    ArmTimer,
    CancelTimer,
    Command,
    Finish,
    Refuse,
    Report,
    Say,
    SendGo,
    SendStop,
)
from dora_daemon.runner.machine.events import (
    EdgeAdded,
    EdgeRemoved,
    LinkConnected,
    LinkExited,
    LinkSpawned,
    LinksSet,
    NodeAdded,
    NodeConnected,
    NodeDetached,
    NodeExited,
    NodeRemoved,
    NodeReplaced,
    NodeRestartRequested,
    NodeSilent,
    NodeSpawned,
    NodeStopRequested,
    OutputsClosed,
    Prepared,
    Released,
    RunnerStimulus,
    SourceClosed,
    SourceReopened,
    SpawnFailed,
    StopRequested,
    TimerFired,
)
from dora_daemon.runner.machine.link import LinkLife
from dora_daemon.runner.machine.node import (
    BarrierBroke,
    BarrierOpened,
    InputsEnded,
    NodeLife,
    NodeState,
    Spawn,
    StopAsked,
)
from dora_daemon.runner.machine.wiring import Edge, Wiring

Phase = Literal["starting", "ready", "running", "stopping", "finished"]

STOP_AFTER = "stop_after"
BARRIER_NOTICE = "barrier_notice"

BARRIER_PATIENCE = 10.0
"""Seconds of waiting for nodes to connect before it is said whom the start waits for, and by which
``stop_after``, which counts from the opening of the barrier, may be late if it never opens."""
MISSING_SHOWN = 10
"""Nodes that a notice names; of more it says how many."""
BARRIER_NOTICE_EVERY = 60.0
"""Seconds between further notices."""


class RunnerState:
    """A dataflow on one machine. Tested without a process, a socket or a clock."""

    def __init__(
        self,
        nodes: Iterable[ResolvedNode],
        *,
        dataflow_id: str,
        name: str | None = None,
        wiring: Wiring | None = None,
        stop_grace: float = 10.0,
        stop_after: float | None = None,
        exit_when_nodes_finish: bool = False,
        whole: bool = True,
        hold_at_barrier: bool = False,
        default_finish_grace: float | None = DEFAULT_FINISH_GRACE,
        log_dir: str | None = None,
    ) -> None:
        nodes = tuple(nodes)
        self.dataflow_id = dataflow_id
        self.name = name
        self.log_dir = log_dir
        self.phase: Phase = "starting"
        self.wiring = wiring or Wiring(nodes, only_data_counts=exit_when_nodes_finish)
        self.stop_grace = stop_grace
        self.stop_after = stop_after
        self.exit_when_nodes_finish = exit_when_nodes_finish
        self.whole = whole
        """All nodes of the dataflow are here."""
        self.only_virtual_left = False
        """As it was reported last, where others decide what follows from it."""
        self.hold_at_barrier = hold_at_barrier
        self.default_finish_grace = default_finish_grace
        self.stop_reason: str | None = None
        self.started = False
        """The barrier is open."""
        self._incarnations = count(1)
        self.link = LinkLife(self.reserve_incarnation)
        self.nodes: dict[str, NodeLife] = {}
        for node in nodes:
            self._add_life(node)
        self._barrier = {n.id for n in nodes if _takes_part_in_barrier(n)}
        for life in self.nodes.values():
            life.must_connect = _must_connect(life.spec, len(self._barrier))
        self.results: list[NodeResult] = []
        """In the order in which nodes ended."""
        self._had_only_virtual = all(
            self.wiring.reads_only_virtual(n.id) for n in nodes if not n.is_dynamic
        )

    def reserve_incarnation(self) -> int:
        """A number for a process that is no node's, or not yet."""
        return next(self._incarnations)

    def _add_life(self, node: ResolvedNode) -> NodeLife:
        own_grace = node.finish_grace != DEFAULT_FINISH_GRACE
        grace = node.finish_grace if own_grace else self.default_finish_grace
        life = NodeLife(
            node,
            lambda: next(self._incarnations),
            lambda: len(self.results),
            stop_grace=self.stop_grace,
            finish_grace=grace,
            barrier_open=self.started,
        )
        self.nodes[node.id] = life
        return life

    # ------------------------------------------------------------------------------ the door

    def handle(self, event: RunnerStimulus, now: float) -> list[Command]:
        """Take in one event and say what is to be done. ``now`` in seconds, never going back."""
        commands = self._handle(event, now)
        commands += self._after(now)
        return commands

    def _handle(self, event: RunnerStimulus, now: float) -> list[Command]:
        match event:
            case Prepared():
                return self._begin(now)
            case Released():
                self.hold_at_barrier = False
                return self._open_barrier(now) if self.phase == "ready" else []
            case StopRequested():
                return self._stop(event, now)
            case NodeConnected():
                return self._connected(event, now)
            case NodeSpawned() | SpawnFailed() | NodeExited() | NodeDetached() | NodeSilent():
                return self._to_incarnation(event, now)
            case TimerFired(node=node, timer=timer):
                if node is None:
                    return self._timer(timer, now)
                if node == LINK_NODE:
                    return self.link.timer(event, now)
                return self._to_node(node, event, now)
            case NodeStopRequested(node=node, grace=grace):
                return self._to_node(node, StopAsked(grace, why="node stop requested"), now)
            case NodeRestartRequested(node=node, grace=grace):
                return self._restart_node(node, grace, now)
            case NodeReplaced(spec=spec, incarnation=number, grace=grace):
                successor = (spec, number)
                asked = StopAsked(grace, "replace", why="replaced", successor=successor)
                return self._to_node(spec.id, asked, now)
            case OutputsClosed(node=node, outputs=outputs):
                return [AnnounceClosed(node, outputs), *self._closed(node, outputs, now)]
            case LinksSet() | LinkSpawned() | LinkConnected() | LinkExited():
                return self._about_link(event, now)
            case SourceClosed(node=node, output=output):
                return self._closed(node, (output,), now)
            case SourceReopened(node=node, output=output):
                self.wiring.reopen(node, (output,))
                return []
            case NodeAdded(node=node):
                return self._add_node(node, now)
            case NodeRemoved(node=node):
                return self._remove_node(node, now)
            case EdgeAdded():
                self.wiring.add_edge(Edge(event.source, event.output, event.target, event.input))
                return []
            case EdgeRemoved():
                edge = Edge(event.source, event.output, event.target, event.input)
                self.wiring.remove_edge(edge)
                return self._tell_inputs_ended([event.target], now)
            case _ as never:
                assert_never(never)

    def _to_node(self, node: str, event: object, now: float) -> list[Command]:
        life = self.nodes.get(node)
        if life is None:
            return []
        was_ended = life.ended
        commands = life.handle(event, now)  # type: ignore[arg-type]
        if life.ended and not was_ended:
            assert life.result is not None
            self.results.append(life.result)
            commands += self._closed(node, None, now)
            commands += self._check_barrier_after(life, now)
        elif life.state is NodeState.ABSENT:
            commands += self._closed(node, None, now)
        return commands

    def _to_incarnation(
        self,
        event: NodeSpawned | SpawnFailed | NodeExited | NodeDetached | NodeSilent,
        now: float,
    ) -> list[Command]:
        """Pass an event on, unless it is about a process that is no longer the node's."""
        life = self.nodes.get(event.node)
        if life is None or life.incarnation != event.incarnation:
            return []
        return self._to_node(event.node, event, now)

    def _about_link(
        self, event: LinksSet | LinkSpawned | LinkConnected | LinkExited, now: float
    ) -> list[Command]:
        match event:
            case LinksSet(outgoing=outgoing):
                self.wiring.set_reader(LINK_NODE, outgoing)
                return self.link.start(now) if self.phase != "finished" else []
            case LinkSpawned():
                return self.link.spawned(event)
            case LinkConnected():
                commands = self.link.connected(event)
                closed = self.wiring.closed_inputs(LINK_NODE)
                if closed and event.incarnation == self.link.incarnation:
                    # An earlier link may have died with the news.
                    commands.append(AnnounceClosedAgain(LINK_NODE, closed))
                return commands
            case LinkExited():
                return self.link.exited(event, now)

    # ---------------------------------------------------------------------------- start

    def _begin(self, now: float) -> list[Command]:
        commands: list[Command] = []
        for life in self.nodes.values():
            if life.state is NodeState.PLANNED and self.phase == "starting":
                commands += life.handle(Spawn(), now)
        commands.append(ArmTimer(None, BARRIER_NOTICE, now + BARRIER_PATIENCE))
        if self.stop_after is not None:
            latest = now + self.stop_after + BARRIER_PATIENCE
            commands.append(ArmTimer(None, STOP_AFTER, latest))
        return commands

    def _connected(self, event: NodeConnected, now: float) -> list[Command]:
        life = self.nodes.get(event.node)
        if life is None:
            known = ", ".join(sorted(self.nodes)) or "none"
            return [
                Refuse(
                    event.node,
                    f'there is no node "{event.node}" in dataflow {self.name or self.dataflow_id}'
                    f" on this machine (its nodes: {known})",
                )
            ]
        if event.incarnation is not None and event.incarnation != life.incarnation:
            # The last word of a process that was killed meanwhile, or somebody with its settings.
            return [Refuse(event.node, f'another process is node "{life.id}" now')]
        if self.phase in ("stopping", "finished") and life.broken_by is None:
            return [Refuse(event.node, "the dataflow is being stopped")]
        commands = self._to_node(event.node, event, now)
        if any(isinstance(command, Refuse) for command in commands):
            return commands  # the process that is attached already learns nothing of it
        if life.connected and (life.dynamic or life.restarts):
            self.wiring.reopen(life.id)
            if closed := self.wiring.closed_inputs(life.id):
                commands.append(AnnounceClosedAgain(life.id, closed))
        if life.connected and self.started:
            commands.append(SendGo((life.id,)))
            commands += self._tell_inputs_ended([life.id], now)
        return commands

    def _after(self, now: float) -> list[Command]:
        """What follows from the state as a whole, whatever happened."""
        commands: list[Command] = []
        if self.phase == "starting" and self._all_connected():
            self.phase = "ready"
            commands.append(Report(NodesReady()))
            if not self.hold_at_barrier:
                commands += self._open_barrier(now)
        if self.phase in ("running", "ready") and self.exit_when_nodes_finish:
            commands += self._look_who_is_left(now)
        if self.phase != "finished" and self._all_ended():
            if self.phase != "stopping":
                self.phase = "stopping"
            if self.link.over:
                commands += self._finish()
            elif not self.link.ending:
                commands += self.link.end(now, stopping=self.stop_reason is not None)
        return commands

    def _all_connected(self) -> bool:
        waited_for = [self.nodes[n] for n in self._barrier if n in self.nodes]
        started = any(life.state is not NodeState.PLANNED for life in self.nodes.values())
        return started and all(life.connected or life.ended for life in waited_for)

    def _open_barrier(self, now: float) -> list[Command]:
        self.phase = "running"
        self.started = True
        ready = tuple(n for n, life in self.nodes.items() if life.connected)
        commands: list[Command] = [CancelTimer(None, BARRIER_NOTICE), SendGo(ready)]
        for life in self.nodes.values():
            life.handle(BarrierOpened(), now)
            life.barrier_open = True
        commands.append(Report(DataflowStarted(dataflow_id=self.dataflow_id)))
        if self.stop_after is not None:
            commands.append(ArmTimer(None, STOP_AFTER, now + self.stop_after))
        return commands + self._tell_inputs_ended(self.nodes, now)

    def _say_who_is_missing(self, now: float) -> list[Command]:
        if not self.nodes:
            return [Say("warn", "the dataflow has no nodes: it waits until it is stopped")]
        lives = [life for n, life in self.nodes.items() if n in self._barrier]
        missing = [life.id for life in lives if not life.connected and not life.ended]
        commands: list[Command] = [ArmTimer(None, BARRIER_NOTICE, now + BARRIER_NOTICE_EVERY)]
        if missing:
            names = ", ".join(f'"{name}"' for name in missing[:MISSING_SHOWN])
            if len(missing) > MISSING_SHOWN:
                names += f" and {len(missing) - MISSING_SHOWN} more"
            which, they = ("node", "it has") if len(missing) == 1 else ("nodes", "they have")
            text = (
                f"the dataflow has not started: still waiting for {which} {names} to connect"
                f" ({they} not created a dora `Node()` yet; `startup_timeout` sets a limit)"
            )
            commands.append(Say("warn", text))
        return commands

    def _check_barrier_after(self, life: NodeLife, now: float) -> list[Command]:
        """A node that failed before it connected keeps the others from starting."""
        result = life.result
        if self.phase != "starting" or life.id not in self._barrier:
            return []
        if result is None or result.outcome != "failed" or not life.ended_unconnected:
            return []
        self.phase = "stopping"
        self.stop_reason = f'node "{life.id}" exited before connecting'
        commands: list[Command] = []
        for other in list(self.nodes.values()):
            if other is not life:
                if other.state is NodeState.PLANNED:
                    other.broken_by = life.id
                    commands += self._to_node(other.id, StopAsked(0.0), now)
                else:
                    commands += self._to_node(other.id, BarrierBroke(life.id, self.stop_grace), now)
        return commands

    # ------------------------------------------------------------------------------ inputs

    def _closed(self, node: str, outputs: tuple[str, ...] | None, now: float) -> list[Command]:
        return self._tell_inputs_ended(self.wiring.close(node, outputs), now)

    def _tell_inputs_ended(self, consumers: Iterable[str], now: float) -> list[Command]:
        commands: list[Command] = []
        for consumer in consumers:
            life = self.nodes.get(consumer)
            if life is not None and self.wiring.all_inputs_closed(consumer):
                commands += self._to_node(consumer, InputsEnded(), now)
        return commands

    # -------------------------------------------------------------------------------- stop

    def _stop(self, event: StopRequested, now: float) -> list[Command]:
        if self.phase == "finished":
            return []
        grace = 0.0 if event.force else self.stop_grace if event.grace is None else event.grace
        if self.phase != "stopping":
            self.stop_reason = event.reason
        self.phase = "stopping"
        commands: list[Command] = [
            CancelTimer(None, STOP_AFTER),
            CancelTimer(None, BARRIER_NOTICE),
            Report(DataflowStopping(reason=event.reason, grace=grace)),
        ]
        if event.comes_back:
            commands += self.link.cut()
        for node in list(self.nodes):
            commands += self._to_node(node, StopAsked(grace, why=event.reason), now)
        if self._all_ended():
            commands += self.link.end(now, stopping=True, force=event.force)
        return commands

    def _timer(self, timer: str, now: float) -> list[Command]:
        if timer == BARRIER_NOTICE and self.phase == "starting":
            return self._say_who_is_missing(now)
        if timer == STOP_AFTER and self.phase in ("starting", "ready", "running"):
            return self._stop(StopRequested(f"stop after {self.stop_after:g} s"), now)
        return []

    def _restart_node(self, node: str, grace: float, now: float) -> list[Command]:
        if self.phase in ("stopping", "finished"):
            return []
        life = self.nodes[node]
        revived = life.ended
        commands = self._to_node(node, StopAsked(grace, "restart", why="restart requested"), now)
        if revived:
            self.results = [r for r in self.results if r.node != node]
            self.wiring.reopen(node)
        return commands

    # ------------------------------------------------------------------- nodes come and go

    def _add_node(self, node: ResolvedNode, now: float) -> list[Command]:
        self.wiring.add_node(node)
        life = self._add_life(node)
        life.must_connect = bool(node.inputs or node.outputs)
        if life.dynamic:
            return []
        if self.phase not in ("starting", "ready", "running"):
            return self._to_node(node.id, StopAsked(0.0), now)
        return life.handle(Spawn(), now)

    def _remove_node(self, node: str, now: float) -> list[Command]:
        touched = {e.target for e in self.wiring.remove_node(node)} - {node}
        del self.nodes[node]
        self._barrier.discard(node)
        self.results = [r for r in self.results if r.node != node]
        return self._tell_inputs_ended(touched, now)

    # --------------------------------------------------------------------------------- end

    def _static(self) -> list[NodeLife]:
        return [life for life in self.nodes.values() if not life.dynamic]

    def _look_who_is_left(self, now: float) -> list[Command]:
        """``exit_when_nodes_finish``: end, or let those decide who know the other machines."""
        left = [life for life in self._static() if not life.ended]
        only_virtual = all(self.wiring.reads_only_virtual(life.id) for life in left)
        if not self.whole:
            if only_virtual == self.only_virtual_left:
                return []
            self.only_virtual_left = only_virtual
            return [Report(WaitingChanged(only_virtual_left=only_virtual))]
        if not left or not only_virtual or self._had_only_virtual:
            return []
        return self._stop(StopRequested("all nodes but those with timers finished"), now)

    def _all_ended(self) -> bool:
        static = self._static()
        if not static and self.phase != "stopping":
            return False
        return all(life.ended for life in static)

    def _finish(self) -> list[Command]:
        self.phase = "finished"
        result = DataflowResult(
            dataflow_id=self.dataflow_id,
            name=self.name,
            nodes=tuple(self.results),
            stop_reason=self.stop_reason,
            log_dir=self.log_dir,
        )
        leaving: list[Command] = [
            SendStop(life.id) for life in self.nodes.values() if life.dynamic and life.connected
        ]
        return [
            *leaving,
            CancelTimer(None, STOP_AFTER),
            CancelTimer(None, BARRIER_NOTICE),
            Finish(result),
            Report(DataflowFinished(result=result)),
        ]


def _takes_part_in_barrier(node: ResolvedNode) -> bool:
    """Nodes without ports may be any program; a shell command without ports never connects."""
    return not node.is_dynamic and bool(node.kind != "shell" or node.inputs or node.outputs)


def _must_connect(node: ResolvedNode, in_barrier: int) -> bool:
    """Whether ending with success before connecting lets somebody down."""
    if node.inputs or node.outputs:
        return True
    return _takes_part_in_barrier(node) and in_barrier > 1
