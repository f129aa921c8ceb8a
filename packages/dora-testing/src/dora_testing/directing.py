"""Carry out what the state machine of a runner commands, in virtual time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import OutputSource, TimerSource
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine import commands as do, events
from dora_daemon.runner.machine.edges import backpressure_cycles
from dora_daemon.runner.machine.state import RunnerMachine
from dora_daemon.runner.nodes.node_config import node_config
from dora_node_api.backends.outputs import delivery_flags
from dora_node_api.protocol import lockstep as wire
from dora_node_api.protocol.messages import SetParam
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.layout import RecordKind
from dora_testing.errors import FlowError
from dora_testing.messages import Opened, lifecycle, make_block
from dora_testing.participants import Participant
from dora_testing.queues import InputQueue
from dora_testing.results import Sent
from dora_testing.schedule import Timeline
from dora_testing.sources import Emission, Source


class Director(ABC):
    """The nodes of one runner, its state machine, its timers and the queues between nodes."""

    record: ClassVar[type[Opened]] = Opened
    """Class of the records in queues."""

    def __init__(
        self,
        timeline: Timeline,
        plan: RunPlan,
        sources: Mapping[str, object],
        outputs: dict[str, list[Sent]],
    ) -> None:
        """`sources`: in place of nodes. `outputs`: keeps what is sent, by `node/output`."""
        self.outputs = outputs
        self._time = timeline
        self._plan = plan
        specs = plan.resolved.nodes
        self._state = RunnerMachine(specs, plan)
        self._cycles = backpressure_cycles(specs)
        self._timers: dict[tuple[str | None, str], object] = {}
        self.parts = {
            spec.id: self._part(place, spec, sources.get(spec.id))
            for place, spec in enumerate(specs)
        }
        self._readers: dict[str, list[InputQueue]] = defaultdict(list)
        """Queues by `node/output`."""
        for part in self.parts.values():
            for name, wanted in part.spec.inputs.items():
                if isinstance(wanted.source, OutputSource):
                    self._readers[str(wanted.source)].append(part.queues[name])

    def _part(self, place: int, spec: ResolvedNode, source: object) -> Participant:
        queues = {
            name: InputQueue(spec.id, name, wanted)
            for name, wanted in spec.inputs.items()
            if not isinstance(wanted.source, TimerSource)
        }
        return Participant(spec, place, queues, source if isinstance(source, Source) else None)

    # --- what is around the nodes ----------------------------------------------------------------

    @abstractmethod
    def _go(self, part: Participant) -> None:
        """Let a node with an event stream begin."""

    @abstractmethod
    def _refuse(self, part: Participant, command: do.Refuse) -> None:
        """Refuse a process that has connected."""

    @abstractmethod
    def _stop(self, part: Participant) -> None:
        """Send STOP to a node that is not a source."""

    @abstractmethod
    def _signal(self, part: Participant, name: str) -> None:
        """Signal the process of a node."""

    @property
    def _clock_ns(self) -> int:
        """Nanoseconds by which the clock of the machine is ahead."""
        return 0

    # --- the state machine -----------------------------------------------------------------------

    def handle(self, event: events.StateEvent) -> None:
        """Pass an event to the state machine."""
        for command in self._state.handle(event, self._time.now_ns / 1e9):
            self._carry_out(command)

    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.SpawnNode(node=node, incarnation=number):
                self.parts[node].incarnation = number
                self._spawn(self.parts[node])
            case do.Admit(node=node, restarts=restarts):
                self._admit(self.parts[node], restarts)
            case do.Refuse(node=node) if node != LINK_NODE:
                self._refuse(self.parts[node], command)
            case do.SendGo(nodes=nodes):
                for node in nodes:
                    self._start(self.parts[node])
            case do.SendStop(node=node) if self.parts[node].source is not None:
                self._source_ended(self.parts[node])
            case do.SendStop(node=node):
                self._stop(self.parts[node])
            case do.SignalNode(node=node, signal=sent):
                self._signal(self.parts[node], sent)
            case do.ArmTimer(node=node, timer=timer, at=at):
                self._arm(node, timer, round(at * 1e9))
            case do.CancelTimer(node=node, timer=timer):
                self._timers.pop((node, timer), None)
            case do.AnnounceClosed(node=node, outputs=outputs):
                self._announce(node, lifecycle(RecordKind.CLOSED), outputs)
            case do.AnnounceRestarted(node=node):
                self._announce(node, lifecycle(RecordKind.NODE_RESTARTED))
            case do.AnnounceFailed(node=node, error=error):
                self._announce(node, lifecycle(RecordKind.NODE_FAILED, error))
            case do.RepeatClosed(node=node, inputs=inputs) if node != LINK_NODE:
                for name in inputs:
                    self._arrive(self.parts[node].queues[name], lifecycle(RecordKind.CLOSED))
            case do.DropInputs(node=node):
                for queue in self.parts[node].queues.values():
                    queue.close()
            case _:  # reports, logs, and answers to processes
                pass

    def _arm(self, node: str | None, timer: Any, at: int) -> None:
        number = self._timers[node, timer] = object()

        def fire() -> None:
            if self._timers.get((node, timer)) is number:
                del self._timers[node, timer]
                busy = any(q.ready() for part in self.parts.values() for q in part.queues.values())
                self.handle(events.TimerFired(node, timer, busy=busy))

        self._time.at(max(at, self._time.now_ns), fire)

    # --- processes -------------------------------------------------------------------------------

    def _spawn(self, part: Participant) -> None:
        self._time.at(self._time.now_ns, partial(self._spawned, part.id, part.incarnation))

    def _spawned(self, node: str, number: int) -> None:
        self.handle(events.NodeSpawned(node, number, number))
        self.handle(events.NodeConnected(node, number, number))

    def _admit(self, part: Participant, restarts: int) -> None:
        if part.source is None:
            config = node_config(self._plan, part.spec, restarts, self._cycles)
            session = part.connect(config, self._time.now_ns)
            for key, value in self._plan.params.get(part.id, {}).items():
                session.handle(SetParam(key, value))

    def _start(self, part: Participant) -> None:
        part.started_ns = self._time.now_ns
        if part.source is not None:
            part.emissions = part.source.emissions(part.id, part.spec.outputs)
            self._emit_next(part)
        else:
            assert part.session is not None
            part.session.start(part.started_ns)
            self._go(part)

    # --- sources ---------------------------------------------------------------------------------

    def _emit_next(self, part: Participant) -> None:
        """Schedule the next message of a source."""
        assert part.source is not None
        assert part.emissions is not None
        emission = next(part.emissions, None)
        if emission is not None:
            action = partial(self._emit, part, part.emissions, emission)
            self._time.at(max(self._time.now_ns, part.started_ns + emission.at_ns), action)
        elif part.source.ends:
            self._source_ended(part)

    def _emit(self, part: Participant, run: Iterator[Emission], emission: Emission) -> None:
        if part.emissions is not run:  # it was stopped
            return
        if emission.output:
            self._send(part, emission.output, emission.data, emission.metadata)
        self._emit_next(part)

    def _source_ended(self, part: Participant) -> None:
        part.emissions = None
        exited = events.NodeExited(part.id, part.incarnation, events.Exit(code=0))
        self._time.at(self._time.now_ns, partial(self.handle, exited))

    # --- messages --------------------------------------------------------------------------------

    def _send(
        self, part: Participant, output: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        if output not in part.spec.outputs:
            names = ", ".join(part.spec.outputs) or "none"
            raise FlowError(f'node "{part.id}" has no output `{output}`; it has: {names}')
        block = make_block(data, metadata, wire.wall_ns(self._time.now_ns) + self._clock_ns)
        self.emit(f"{part.id}/{output}", block, delivery_flags(metadata or {}))

    def emit(self, output: str, block: bytes, flags: int = 0) -> None:
        """Send a message on `node/output`."""
        self.outputs.setdefault(output, []).append(Sent(self._time.seconds, block))
        for queue in self._readers[output]:
            self._transmit(output, queue, self.record(block, self._time.now_ns, flags))

    def _announce(
        self, node: str, record: Delivery, outputs: tuple[str, ...] | None = None
    ) -> None:
        for name in self.parts[node].spec.outputs if outputs is None else outputs:
            for queue in self._readers[f"{node}/{name}"]:
                self._transmit(f"{node}/{name}", queue, record)

    def _transmit(self, output: str, queue: InputQueue, record: Delivery) -> None:
        self._arrive(queue, record)

    def _arrive(self, queue: InputQueue, record: Delivery) -> None:
        queue.put(record)
