"""A runner with the product's state machine, whose nodes are functions."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.history.entries import HistoryEntry, HistoryEvent, kept_result
from dora_config.protocol import runner_events as reports
from dora_config.protocol.dataflow_setup import DataflowSetup
from dora_config.protocol.links import RemoteEdge
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner import StopAllNodes
from dora_daemon.agent.records import PartRecord
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.logs.history import beginning, ended
from dora_daemon.runner.machine import commands as do, events
from dora_daemon.runner.machine.edges import Edge
from dora_node_api.operators import DoraStatus
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.layout import RecordKind
from dora_testing.cluster.machine import InProcessMachine, InProcessRunner
from dora_testing.directing import Director
from dora_testing.errors import FlowError
from dora_testing.messages import Opened, lifecycle
from dora_testing.participants import Participant
from dora_testing.queues import InputQueue
from dora_testing.results import Sent
from dora_testing.schedule import Timeline
from dora_testing.sources import Emission, Source

_log = logging.getLogger("dora_testing")

Node = Callable[[Any, Callable[..., None]], Any] | type | Source
"""A function `(event, send_output)`, a class of operators, of which each start makes an object, or
a source."""

_RETRY_SECONDS = 0.01
"""Time until a source tries again to send to a full queue."""


@dataclass
class Traffic:
    """Nodes of one dataflow, and the messages that they have sent and received."""

    nodes: Mapping[str, Node]
    specs: Mapping[str, ResolvedNode]
    sent: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    received: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))


class World(Timeline, Protocol):
    """The network and the clock around a runner."""

    now: float
    traffic: dict[str, Traffic]
    """Traffic by the name of its dataflow."""

    def after(self, seconds: float, action: Callable[[], None]) -> None: ...
    def latency(self, one: str, other: str) -> float: ...
    def peer(self, runner: NodeRunner, machine: str) -> NodeRunner | None: ...
    def stop(self, dataflow_id: str) -> None: ...


class NodeRunner(InProcessRunner, Director):
    """The runner of one part of a dataflow."""

    def __init__(
        self, record: PartRecord, machine: InProcessMachine[NodeRunner], network: World
    ) -> None:
        self._machine, self._network = machine, network
        self.traffic = network.traffic[record.spec.name or ""]
        InProcessRunner.__init__(self, record)
        plan = RunPlan(
            **{name: getattr(record.spec, name) for name in DataflowSetup.model_fields},
            dataflow_id=record.dataflow_id,
            working_dir="/",
            whole=record.links.whole,
            hold_at_barrier=True,
            machine_id=machine.key,
            revision=record.revision,
            recovered=record.recovers,
        )
        Director.__init__(self, network, plan, self.traffic.nodes, self.traffic.sent)
        for part in self.parts.values():
            for name, queue in part.queues.items():
                queue.took = partial(self._took, f"{part.id}/{name}")
        self._calls: dict[str, Callable[..., Any]] = {}
        self._link_run = 0
        self._finishing = False
        """Whether the link delivers what is queued and then ends."""
        self._ended_peers: set[str] = set()
        self._kept: list[HistoryEntry] = []
        self._keep(beginning(plan))
        self.edges = record.links.edges
        self._streams: list[tuple[RemoteEdge, InputQueue]] = []
        for edge in self.edges:
            if edge.source_machine == machine.key:
                stream = InputQueue(edge.target, edge.input, edge)
                self._streams.append((edge, stream))
                self._readers[f"{edge.source}/{edge.output}"].append(stream)
        if self.edges:
            out = [Edge(e.source, e.output, LINK_NODE, str(e.target)) for e, _ in self._streams]
            self.handle(events.OutgoingStreamsSet(tuple(out)))
        self.handle(events.Prepared())

    def _took(self, edge: str, record: Delivery) -> None:
        if isinstance(record, Opened):
            self.traffic.received[edge].append(Sent(self._network.seconds, record.block))

    @property
    def _clock_ns(self) -> int:
        return round(self._machine.clock * 1e9)

    # --- what the daemon does ----------------------------------------------------------------

    def release(self) -> None:
        self.handle(events.BarrierReleased())

    def stop(self, request: StopAllNodes) -> None:
        self.handle(events.RunStopRequested(request.reason, request.grace, request.force))

    def history(self) -> tuple[HistoryEntry, ...]:
        return tuple(self._kept)

    def kill(self, node: str) -> None:
        """Kill the process of a node."""
        self._exit(self.parts[node], events.Exit(signal="SIGKILL"))

    def restarts(self, node: str) -> int:
        """Return how often a node was restarted."""
        found = self._state.node(node)
        assert found is not None
        return found.restarts

    def waiting(self, node: str, name: str) -> int:
        """Return how many messages for an input wait here or are on the way to it."""
        streams = [s for edge, s in self._streams if (edge.target, edge.input) == (node, name)]
        own = [self.parts[node].queues[name]] if node in self.parts else []
        return sum(queue.waiting + queue.on_way for queue in (*streams, *own))

    # --- progress ----------------------------------------------------------------------------

    def work(self) -> bool:
        """Let each node handle its next event; return whether anything happened."""
        if not self.lives:
            return False
        moved = self._close_ended()
        for edge, stream in self._streams:
            moved |= self._forward(edge, stream)
        for part in list(self.parts.values()):
            moved |= self._advance(part)
        if self._finishing and not any(stream.ready() for _, stream in self._streams):
            self._link_exited(events.Exit(code=0))
            return True
        return moved

    def _forward(self, edge: RemoteEdge, stream: InputQueue) -> bool:
        """Send what waits for another machine, as far as the network and the reader allow."""
        moved = False
        while stream.ready():
            peer = self._network.peer(self, edge.target_machine)
            if peer is None or edge.target not in peer.parts:
                break
            queue = peer.parts[edge.target].queues[edge.input]
            if queue.full:
                break
            record = stream.take()
            assert record is not None
            queue.on_way += record.kind is RecordKind.DATA
            latency = self._network.latency(edge.source_machine, edge.target_machine)
            self._network.after(latency, partial(peer.arrived, edge, record))
            moved = True
        return moved

    def arrived(self, edge: RemoteEdge, record: Delivery) -> None:
        """Process a record from another machine."""
        if not self.lives:
            return
        queue = self.parts[edge.target].queues[edge.input]
        queue.on_way -= record.kind is RecordKind.DATA
        if record.kind is RecordKind.CLOSED:
            self.handle(events.SourceClosed(edge.source, edge.output))
        elif record.kind is RecordKind.NODE_RESTARTED:
            self.handle(events.SourceReopened(edge.source, edge.output))
        queue.put(record)

    def _close_ended(self) -> bool:
        """Close the edges to machines whose part has ended."""
        found = set() if self.link is None else self.link.ended - self._ended_peers
        self._ended_peers |= found
        for edge in self.edges:
            if edge.source_machine in found:
                self.handle(events.SourceLost(edge.source, edge.output))
                self.parts[edge.target].queues[edge.input].put(lifecycle(RecordKind.CLOSED))
        for edge, stream in self._streams:
            if edge.target_machine in found:
                stream.close()
        return bool(found)

    def _advance(self, part: Participant) -> bool:
        if part.source is not None:
            taken = [queue.take() for queue in part.queues.values()]
            return any(taken)
        if part.session is None or self._is_blocked(part):
            return False
        part.now, part.clock_ns = self._network.now_ns, self._clock_ns
        event = part.session.next_event(part.now)
        if event is not None:
            self._call(part, event)
        elif part.session.ended:
            self._exit(part, events.Exit(code=0))
        else:
            at = part.next_time()
            if at is not None and at != part.check_at:
                part.check_at = at
                self._network.at(max(at, part.now + 1), lambda: None)
            return False
        return True

    def _is_blocked(self, part: Participant) -> bool:
        """Whether a `backpressure` reader has no room for the next message of the node."""
        outputs = part.spec.outputs
        return any(queue.full for name in outputs for queue in self._readers[f"{part.id}/{name}"])

    def _call(self, part: Participant, event: Any) -> None:
        try:
            status = self._calls[part.id](event, partial(self._send, part))
        except FlowError:
            raise
        except Exception as error:  # noqa: BLE001 - the node fails, not the test
            _log.error('node "%s" failed', part.id, exc_info=error)
            self._exit(part, events.Exit(code=1), traceback.format_exception_only(error))
            return
        if status is DoraStatus.STOP:
            self._exit(part, events.Exit(code=0))
        elif status is DoraStatus.STOP_ALL:
            self._network.stop(self.dataflow_id)

    # --- processes ---------------------------------------------------------------------------

    def _go(self, part: Participant) -> None:
        node: Any = self.traffic.nodes.get(part.id, _silent)
        self._calls[part.id] = node().on_event if isinstance(node, type) else node

    def _emit(self, part: Participant, run: Iterator[Emission], emission: Emission) -> None:
        if not self.lives:
            return
        if self._is_blocked(part):
            again = partial(self._emit, part, run, emission)
            self._network.after(_RETRY_SECONDS, again)
        else:
            super()._emit(part, run, emission)

    def _refuse(self, part: Participant, command: do.Refuse) -> None:
        self._exit(part, events.Exit(code=1))

    def _stop(self, part: Participant) -> None:
        if part.session is not None:
            part.session.stop("MANUAL")
        else:
            self._exit(part, events.Exit(code=0))

    def _signal(self, part: Participant, name: str) -> None:
        self._exit(part, events.Exit(signal=name))

    def _exit(self, part: Participant, how: events.Exit, tail: Sequence[str] = ()) -> None:
        part.session = part.emissions = None
        drained = not any(queue.waiting for queue in part.queues.values())
        self.handle(events.NodeExited(part.id, part.incarnation, how, drained, tuple(tail)))

    def _link_spawned(self) -> None:
        self.handle(events.LinkSpawned(self._link_run))
        self.handle(events.LinkConnected(self._link_run))

    def _link_exited(self, how: events.Exit) -> None:
        self._finishing = False
        drained = not any(stream.waiting for _, stream in self._streams)
        self.handle(events.LinkExited(self._link_run, how, drained))

    # --- the state machine -------------------------------------------------------------------

    def handle(self, event: events.StateEvent) -> None:
        if self.phase in ("dead", "gone"):
            return
        super().handle(event)
        state = self._state
        if (state.phase, state.only_virtual_left) != (self.phase, self.only_virtual_left):
            self.phase, self.only_virtual_left = state.phase, state.only_virtual_left
            self.result = state.result
            self._machine.report_runner(self)

    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.ReportEvent(event=event) if not isinstance(event, reports.RunnerState):
                self._report(event)
            case do.SpawnLink(incarnation=number):
                self._link_run = number
                self._network.after(0, self._link_spawned)
            case do.FinishLink():
                self._finishing = True
            case do.SignalLink(signal=name):
                self._network.after(0, partial(self._link_exited, events.Exit(signal=name)))
            case _:
                super()._carry_out(command)

    def _report(self, event: Any) -> None:
        match event:
            case reports.NodeFailed(result=result):
                self._keep(reports.NodeFailed(result=kept_result(result)))
            case reports.DataflowFinished(result=result):
                self._keep(ended(result))
            case _:
                self._keep(event)

    def _keep(self, event: HistoryEvent) -> None:
        self._kept.append(HistoryEntry(at=self._network.now + self._machine.clock, event=event))


def _silent(event: Any, send_output: Any) -> None:
    """A node that only waits for its end."""
