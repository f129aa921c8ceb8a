"""State machine of a dataflow on one machine: `RunnerMachine` turns events into commands; pure.

It decides what concerns several nodes: the start barrier, cascading failures, ended inputs, the
stop of the dataflow and its result. ``node`` and ``link`` hold the states of a single node and of
the link, ``wiring`` the edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Final, Literal

from dora_config.dataflow.resolved import DEFAULT_FINISH_GRACE, ResolvedNode
from dora_config.protocol import runner_events as reports
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine import commands as do, events
from dora_daemon.runner.machine.barrier import BARRIER_NOTICE, NOTICE_SECONDS, StartBarrier
from dora_daemon.runner.machine.left_over import LEFT_OVER, LeftOverWatch
from dora_daemon.runner.machine.link import LinkLifecycle
from dora_daemon.runner.machine.node import NodeLifecycle, NodeState, StopOrder
from dora_daemon.runner.machine.wiring import Wiring

Phase = Literal["starting", "ready", "running", "stopping", "finished"]

STOP_AFTER: Final = "stop_after"

_OVER = ("stopping", "finished")
_CANCEL_TIMERS = tuple(do.CancelTimer(None, t) for t in (STOP_AFTER, BARRIER_NOTICE, LEFT_OVER))


class RunnerMachine:
    """State of a dataflow on one machine. Only :meth:`handle` changes it."""

    def __init__(
        self,
        nodes: Iterable[ResolvedNode],
        plan: RunPlan,
        *,
        default_finish_grace: float | None = DEFAULT_FINISH_GRACE,
        log_dir: str | None = None,
    ) -> None:
        nodes = tuple(nodes)
        self._plan = plan
        self._default_finish_grace = default_finish_grace
        self._log_dir = log_dir
        self.phase: Phase = "starting"
        self.only_virtual_left = False
        """Whether no remaining node of this part keeps the dataflow running."""
        self.result: reports.DataflowResult | None = None
        """Result of the dataflow; None before its end."""
        self._stop_reason: str | None = None
        self._wiring = Wiring(nodes, only_data_counts=plan.exit_when_nodes_finish)
        self._incarnations = count(1)
        self._link = LinkLifecycle(self._incarnations)
        self._barrier = StartBarrier(nodes, held=plan.hold_at_barrier)
        self._nodes: dict[str, NodeLifecycle] = {}
        for node in nodes:
            self._add(node)
        self._leaving: set[str] = set()
        """Nodes that are removed once they have ended, or were added and have not connected yet."""
        self._stopped = set(plan.stopped)
        """Nodes that an operator has stopped and may start again."""
        self._results: list[reports.NodeResult] = []
        """Results in the order in which nodes ended."""
        self._left_over = LeftOverWatch(stops=plan.exit_when_nodes_finish)
        self._had_only_virtual = self._wiring.only_virtual(
            [n.id for n in nodes if not n.is_dynamic]
        )

    def _add(self, node: ResolvedNode) -> NodeLifecycle:
        own_grace = node.finish_grace != DEFAULT_FINISH_GRACE
        grace = node.finish_grace if own_grace else self._default_finish_grace
        life = NodeLifecycle(
            node,
            self._incarnations,
            lambda: len(self._results),
            stop_grace=self._plan.stop_grace,
            finish_grace=grace,
            barrier_open=self._barrier.open,
        )
        self._nodes[node.id] = life
        return life

    # ------------------------------------------------------------------------------- reading

    def node(self, node: str) -> NodeLifecycle | None:
        """Return a node; None if it does not exist here."""
        return self._nodes.get(node)

    def nodes(self) -> tuple[NodeLifecycle, ...]:
        return tuple(self._nodes.values())

    def closed_inputs(self, reader: str) -> tuple[str, ...]:
        """Return the inputs of a node, or of the link, that have ended."""
        return self._wiring.closed_inputs(reader)

    # -------------------------------------------------------------------------------- events

    def handle(self, event: events.StateEvent, now: float) -> list[do.Command]:
        """Process one event. ``now``: seconds of a monotonic clock."""
        return [*self._handle(event, now), *self._advance(now)]

    def _handle(self, event: events.StateEvent, now: float) -> list[do.Command]:
        if isinstance(event, events.ProcessEvent):
            life = self._nodes.get(event.node)
            if life is None or life.incarnation != event.incarnation:
                return []  # a former process of the node
            return self._settle(life, life.handle(event, now), now)
        if isinstance(event, events.EdgeEvent):
            commands, readers = self._wiring.handle(event)
            return commands + self._end_inputs(readers, now)
        if isinstance(event, events.OutgoingStreamsSet | events.LinkProcessEvent):
            return self._about_link(event, now)
        if isinstance(event, events.ReplacementEvent):
            return self._replace(event, now)
        match event:
            case events.Prepared():
                return self._begin(now)
            case events.BarrierReleased():
                self._barrier.held = False
                return self._open_barrier(now) if self.phase == "ready" else []
            case events.RunStopRequested():
                return self._stop(event, now)
            case events.TimerFired():
                return self._timer(event, now)
            case events.NodeConnected():
                return self._connected(event, now)
            case events.NodeAdded(spec=spec):
                return self._add_node(spec, now)
            case events.NodeRemoved(node=node):
                return self._remove_node(node, now)
            case events.NodeStopRequested() | events.NodeRestartRequested():
                return self._request(event, now)

    def _settle(
        self, life: NodeLifecycle, commands: list[do.Command], now: float
    ) -> list[do.Command]:
        """Return the commands of a node with what follows from its end for others."""
        if life.ended and life.result is not None and life.result not in self._results:
            self._results.append(life.result)
            commands += self._end_inputs(self._wiring.close(life.id), now)
            commands += self._break_barrier(life, now)
        elif life.state is NodeState.ABSENT:
            commands += self._end_inputs(self._wiring.close(life.id), now)
        return commands

    def _order(self, life: NodeLifecycle, order: StopOrder, now: float) -> list[do.Command]:
        return self._settle(life, life.order(order, now), now)

    def _advance(self, now: float) -> list[do.Command]:
        """Decide what follows from the state as a whole, after any event."""
        commands: list[do.Command] = []
        if self.phase == "starting" and self._barrier.complete(self._nodes):
            self.phase = "ready"
            if not self._barrier.held:
                commands += self._open_barrier(now)
        if self.phase in ("running", "ready"):
            commands += self._check_left(now)
        # a held barrier waits for the start of other machines; the end is reported after that
        if self.phase not in ("ready", "finished") and self._all_ended():
            self.phase = "stopping"
            if self._link.over:
                commands += self._finish()
            elif not self._link.finishing:
                commands += self._link.finish(now, stopping=self._stop_reason is not None)
        return commands

    def _timer(self, event: events.TimerFired, now: float) -> list[do.Command]:
        if event.node == LINK_NODE:
            return self._link.handle(event, now)
        if event.node is not None:
            life = self._nodes.get(event.node)
            commands = [] if life is None else self._settle(life, life.handle(event, now), now)
            if life is not None and life.up:
                self._leaving.discard(life.id)
            return commands
        if event.timer == BARRIER_NOTICE and self.phase == "starting":
            return self._barrier.notice(self._nodes, now)
        if event.timer == LEFT_OVER and self.phase == "running":
            notice, reason = self._left_over.fired(now, busy=event.busy)
            return notice if reason is None else self._stop(events.RunStopRequested(reason), now)
        if event.timer == STOP_AFTER and self.phase not in _OVER:
            return self._stop(
                events.RunStopRequested(f"stop after {self._plan.stop_after:g} s"), now
            )
        return []

    # ------------------------------------------------------------------------- start barrier

    def _begin(self, now: float) -> list[do.Command]:
        commands: list[do.Command] = []
        if self.phase == "starting":
            for life in self._nodes.values():
                if life.state is NodeState.PLANNED and life.id in self._plan.stopped:
                    commands += self._order(life, StopOrder(0.0), now)
                elif life.state is NodeState.PLANNED:
                    commands += life.spawn()
        commands.append(do.ArmTimer(None, BARRIER_NOTICE, now + NOTICE_SECONDS))
        if self._plan.stop_after is not None:
            latest = now + self._plan.stop_after + NOTICE_SECONDS
            commands.append(do.ArmTimer(None, STOP_AFTER, latest))
        return commands

    def _connected(self, event: events.NodeConnected, now: float) -> list[do.Command]:
        life = self._nodes.get(event.node)
        if life is None:
            return []
        if event.incarnation is not None and event.incarnation != life.incarnation:
            # a former process, or a child that inherited the settings of one
            return [do.Refuse(event.node, f'node "{life.id}" has another process now')]
        if self.phase in _OVER and life.broken_by is None:
            return [do.Refuse(event.node, "the dataflow is being stopped", cancelled=True)]
        commands = self._settle(life, life.handle(event, now), now)
        if any(isinstance(command, do.Refuse) for command in commands):
            return commands
        self._leaving.discard(life.id)
        if life.connected and (life.dynamic or life.restarts):
            self._wiring.reopen(life.id)
            if closed := self._wiring.closed_inputs(life.id):
                commands.append(do.RepeatClosed(life.id, closed))
        if life.connected and self._barrier.open:
            commands.append(do.SendGo((life.id,)))
            commands += self._end_inputs([life.id], now)
        return commands

    def _open_barrier(self, now: float) -> list[do.Command]:
        self.phase = "running"
        self._barrier.open = True
        ready = tuple(node for node, life in self._nodes.items() if life.connected)
        commands: list[do.Command] = [do.CancelTimer(None, BARRIER_NOTICE), do.SendGo(ready)]
        for life in self._nodes.values():
            life.open_barrier()
        commands.append(do.ReportEvent(reports.DataflowStarted(dataflow_id=self._plan.dataflow_id)))
        if self._plan.stop_after is not None:
            commands.append(do.ArmTimer(None, STOP_AFTER, now + self._plan.stop_after))
        return commands + self._end_inputs(self._nodes, now)

    def _break_barrier(self, life: NodeLifecycle, now: float) -> list[do.Command]:
        """Stop the start if a node failed before it connected."""
        if self.phase != "starting" or not self._barrier.broken_by(life):
            return []
        self.phase = "stopping"
        self._stop_reason = f'node "{life.id}" exited before connecting'
        commands: list[do.Command] = []
        for other in self.nodes():
            if other is not life:
                commands += self._settle(other, other.break_barrier(life.id, now), now)
        return commands

    # --------------------------------------------------------------------- edges and the link

    def _end_inputs(self, readers: Iterable[str], now: float) -> list[do.Command]:
        """Note the end of the inputs at those readers whose inputs have all ended."""
        commands: list[do.Command] = []
        for reader in readers:
            life = self._nodes.get(reader)
            if life is not None and self._wiring.all_inputs_closed(reader):
                commands += self._settle(life, life.end_inputs(now), now)
        return commands

    def _about_link(
        self, event: events.OutgoingStreamsSet | events.LinkProcessEvent, now: float
    ) -> list[do.Command]:
        if isinstance(event, events.OutgoingStreamsSet):
            self._wiring.set_reader(LINK_NODE, event.edges)
            return self._link.start(now) if self.phase != "finished" else []
        commands = self._link.handle(event, now)
        if isinstance(event, events.LinkConnected) and event.incarnation == self._link.incarnation:
            # the former link may have ended before it sent these ends to the other machines
            closed = self._wiring.closed_inputs(LINK_NODE)
            commands += [do.RepeatClosed(LINK_NODE, closed)] if closed else []
        return commands

    # ----------------------------------------------------------------------- stop and restart

    def _stop(self, event: events.RunStopRequested, now: float) -> list[do.Command]:
        if self.phase == "finished":
            return []
        usual = self._plan.stop_grace if event.grace is None else event.grace
        grace = 0.0 if event.force else usual
        if self.phase != "stopping":
            self._stop_reason = event.reason
        self.phase = "stopping"
        commands: list[do.Command] = [
            *_CANCEL_TIMERS,
            do.ReportEvent(reports.DataflowStopping(reason=event.reason, grace=grace)),
        ]
        if event.recovering:
            commands += self._link.cut()
        for life in self.nodes():
            commands += self._order(life, StopOrder(grace), now)
        if self._all_ended():
            commands += self._link.finish(now, stopping=True, force=event.force)
        return commands

    def _request(
        self, event: events.NodeStopRequested | events.NodeRestartRequested, now: float
    ) -> list[do.Command]:
        life = self._nodes.get(event.node)
        if life is None:
            return []
        if isinstance(event, events.NodeStopRequested):
            if event.leaves:
                self._leaving.add(event.node)
            else:
                self._stopped.add(event.node)
            return self._order(life, StopOrder(event.grace), now)
        if self.phase in _OVER:
            return []
        self._stopped.discard(event.node)
        revived = life.ended
        commands = self._order(life, StopOrder(event.grace, "restart"), now)
        if revived:
            self._forget_result(event.node)
            self._wiring.reopen(event.node)
        return commands

    def _replace(self, event: events.ReplacementEvent, now: float) -> list[do.Command]:
        match event:
            case events.ReplacementPrepared(node=node):
                return self._nodes[node].stage(next(self._incarnations))
            case events.ReplacementConnected(spec=spec, incarnation=number, grace=grace):
                order = StopOrder(grace, "replace", successor=(spec, number))
                return self._order(self._nodes[spec.id], order, now)
            case events.ReplacementLost(node=node) | events.ReplacementAbandoned(node=node):
                life = self._nodes.get(node)
                return [] if life is None else self._settle(life, life.handle(event, now), now)
            case events.ProgramChanged(spec=spec):
                if self.phase in _OVER:
                    return []
                life = self._nodes[spec.id]
                life.spec = spec
                return self._request(events.NodeRestartRequested(spec.id, 0.0), now)

    # -------------------------------------------------------------------- nodes join and leave

    def _add_node(self, node: ResolvedNode, now: float) -> list[do.Command]:
        self._wiring.add_node(node)
        self._leaving.add(node.id)
        life = self._add(node)
        if life.dynamic:
            return []
        if self.phase in _OVER:
            return self._order(life, StopOrder(0.0), now)
        return life.spawn()

    def _remove_node(self, node: str, now: float) -> list[do.Command]:
        readers = self._wiring.remove_node(node)
        del self._nodes[node]
        self._barrier.nodes.discard(node)
        self._leaving.discard(node)
        self._stopped.discard(node)
        self._forget_result(node)
        return self._end_inputs(readers, now)

    def _forget_result(self, node: str) -> None:
        self._results = [result for result in self._results if result.node != node]

    # ------------------------------------------------------------------------------------ end

    def _static(self) -> list[NodeLifecycle]:
        return [life for life in self._nodes.values() if not life.dynamic]

    def _check_left(self, now: float) -> list[do.Command]:
        """Stop if no remaining node keeps the dataflow running; in a part of it, only note that."""
        static = self._static()
        left = [life.id for life in static if not life.ended]
        only_virtual = self._wiring.only_virtual(left)
        if not self._plan.whole:
            self.only_virtual_left = only_virtual
            return []
        if not left or len(left) == len(static):
            return self._left_over.changed(None, now)
        if only_virtual and not self._had_only_virtual:
            kind = "timers" if self._plan.exit_when_nodes_finish else "logs"
            return self._stop(
                events.RunStopRequested(f"all nodes but those with {kind} finished"), now
            )
        return self._left_over.changed(self._wiring.left_over(left), now)

    def _all_ended(self) -> bool:
        static = self._static()
        if self.phase != "stopping" and all(life.id in self._leaving for life in static):
            return False
        if self.phase != "stopping" and self._keeps_stopped(static):
            return False
        return all(life.ended for life in static)

    def _keeps_stopped(self, nodes: list[NodeLifecycle]) -> bool:
        """Whether the dataflow continues, because an operator has stopped all nodes and may start
        them again; `dora run`, in the foreground, ends instead.
        """
        if not nodes or not self._plan.hold_at_barrier:
            return False
        return all(life.id in self._stopped for life in nodes)

    def _finish(self) -> list[do.Command]:
        self.phase = "finished"
        self.result = reports.DataflowResult(
            dataflow_id=self._plan.dataflow_id,
            name=self._plan.name,
            nodes=tuple(self._results),
            stop_reason=self._stop_reason,
            log_dir=self._log_dir,
        )
        attached = [life for life in self._nodes.values() if life.dynamic and life.connected]
        return [
            *(do.SendStop(life.id) for life in attached),
            *_CANCEL_TIMERS,
            do.FinishDataflow(self.result),
            do.ReportEvent(reports.DataflowFinished(result=self.result)),
        ]
