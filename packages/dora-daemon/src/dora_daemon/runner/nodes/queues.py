"""The queues in front of every input, as the runner keeps them, and the segments of producers.

The runner makes each queue before either end starts and keeps it open, so that what is sent early
or while a consumer restarts waits. It also holds a descriptor of each segment: consumers ask for it
on first use, also when its producer has ended meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.link.streams import RUNNER_NODE
from dora_daemon.runner.machine.wiring import Edge
from dora_node_api.protocol.pool_size import POOL_SIZE_VARIABLE, parse_pool_size
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import TransportError
from dora_node_api.transport.shared.queue import QueueEnds, create_queue, shortfall
from dora_node_api.transport.shared.queue_keeper import QueueKeeper
from dora_node_api.transport.shared.specs import BACKPRESSURE, DROP_OLDEST, QueueSpec

RUNNER = 0
"""Incarnation of the runner itself as a producer."""


LARGEST_HOLD_LIMIT = 64 << 20
"""Bytes; a quarter of the smallest pool that a node gets by default."""

NO_LIMIT = 1 << 62


def hold_limit(producer: ResolvedNode | None, environ: Mapping[str, str]) -> int:
    """Bytes of a producer's pool that one consumer may keep alive before it is given copies.

    A quarter of a pool whose size was set, so that a consumer that keeps arrays leaves room.
    """
    if producer is None:
        return LARGEST_HOLD_LIMIT
    size = producer.shared_memory_pool_size
    if size is None:
        given = producer.env.get(POOL_SIZE_VARIABLE, environ.get(POOL_SIZE_VARIABLE))
        size = parse_pool_size(given) if isinstance(given, str) else None
    return LARGEST_HOLD_LIMIT if size is None else size // 4


@dataclass(slots=True)
class KeptQueue:
    """One queue and the edge that it serves."""

    edge: Edge
    spec: QueueSpec
    ends: QueueEnds
    keeper: QueueKeeper
    from_runner: bool = False
    """The runner is its producer: log entries and lines that are sent as messages."""
    from_link: bool = False
    """The link is its producer: the source is a node of another machine."""

    @property
    def writer(self) -> str:
        """Whose process writes into it."""
        if self.from_link:
            return LINK_NODE
        return RUNNER_NODE if self.from_runner else self.edge.source


@dataclass(slots=True)
class Grave:
    """A producer's process that has ended; its segments stay while a queue may refer to them."""

    incarnation: int
    waits_for: list[tuple[KeptQueue, int]] = field(default_factory=list)
    """Queues it sent to, each with the last sequence number it gave out there."""


class QueueBook:
    """All queues and segments of a dataflow on this machine.

    ``complain`` is told, once, which node's queue holds less than was asked for, and why.
    """

    def __init__(
        self, board: Board, complain: Callable[[str, str], None] = lambda node, text: None
    ) -> None:
        self.board = board
        self._complain = complain
        self._complained = False
        self._queues: dict[Edge, KeptQueue] = {}
        self.dropped_before: dict[str, int] = {}
        """Messages that closed queues have dropped, by edge."""
        self._numbers = 0
        self._segments: dict[tuple[int, int], tuple[int, int]] = {}
        self._graves: list[Grave] = []
        self._closed = False

    # ------------------------------------------------------------------------------ queues

    def ensure(
        self,
        edge: Edge,
        *,
        bound: int,
        backpressure: bool = False,
        from_runner: bool = False,
        from_link: bool = False,
        hold_limit: int = LARGEST_HOLD_LIMIT,
        journal: bool = False,
    ) -> tuple[KeptQueue, bool]:
        """The queue of an edge, and whether it was made just now. Raises QueueUnavailable.

        ``hold_limit``: bytes of the producer's pool that the consumer may keep alive. With a
        ``journal`` nothing that the consumer has taken is lost when it is killed.
        """
        kept = self._queues.get(edge)
        if kept is not None:
            return kept, False
        try:
            waits = backpressure and not from_runner
            kept = self._make(edge, bound, waits, hold_limit, journal=journal and waits)
        except (OSError, ValueError, TransportError) as error:
            raise QueueUnavailable(
                f"cannot make the queue of edge {edge}: {error}. Each edge takes up to six file"
                f" descriptors, {len(self._queues)} have theirs; raise the limit (`ulimit -n`)"
            ) from error
        if not self._complained and (short := shortfall(kept.spec, kept.ends)) is not None:
            self._complained = True
            self._complain(edge.target, f"{edge}: {short}. Other queues may be as short")
        kept.from_runner, kept.from_link = from_runner, from_link
        self._queues[edge] = kept
        return kept, True

    def _make(
        self, edge: Edge, bound: int, backpressure: bool, hold_limit: int, *, journal: bool
    ) -> KeptQueue:
        area, slots = self.board.allocate_edge(bound)
        noted = 0
        try:
            noted = self.board.allocate_journal() if journal else 0
            return self._make_in(area, slots, noted, edge, bound, backpressure, hold_limit)
        except BaseException:
            for taken in filter(None, (area, noted)):
                self.board.free_edge(taken)
            raise

    def _make_in(
        self,
        area: int,
        slots: int,
        journal: int,
        edge: Edge,
        bound: int,
        backpressure: bool,
        hold_limit: int,
    ) -> KeptQueue:
        self._numbers += 1
        spec = QueueSpec(
            queue=self._numbers,
            producer=edge.source,
            output=edge.output,
            consumer=edge.target,
            input=edge.input,
            policy=BACKPRESSURE if backpressure else DROP_OLDEST,
            bound=bound,
            area=area,
            ledger_slots=slots,
            hold_limit=hold_limit,
            journal=journal,
        )
        ends = create_queue(spec)
        return KeptQueue(edge, spec, ends, QueueKeeper(self.board, spec, ends))

    def get(self, edge: Edge) -> KeptQueue | None:
        return self._queues.get(edge)

    def all(self) -> list[KeptQueue]:
        """Every queue, in the order in which they were made."""
        return list(self._queues.values())

    def into(self, node: str) -> list[KeptQueue]:
        """Queues that a node reads."""
        return [q for q in self._queues.values() if q.edge.target == node]

    def out_of(self, node: str, outputs: Iterable[str] | None = None) -> list[KeptQueue]:
        """Queues that a node's outputs (``None``: all) go to."""
        wanted = None if outputs is None else set(outputs)
        return [
            q
            for q in self._queues.values()
            if q.edge.source == node and (wanted is None or q.edge.output in wanted)
        ]

    def written_by(self, writer: str) -> list[KeptQueue]:
        """Queues that a process writes into: a node's, the link's or ours (see KeptQueue)."""
        return [q for q in self._queues.values() if q.writer == writer]

    def drop(self, edge: Edge) -> None:
        """Close a queue, after its producer was told."""
        kept = self._queues.pop(edge, None)
        if kept is not None:
            self.dropped_before[kept.spec.edge] = kept.keeper.statistics().dropped
            for grave in self._graves:
                grave.waits_for = [w for w in grave.waits_for if w[0] is not kept]
            kept.keeper.close()
            if kept.spec.journal:
                self.board.free_edge(kept.spec.journal)

    def queued(self, node: str) -> int:
        """Messages that wait at all inputs of a node."""
        return sum(q.ends.depth() for q in self.into(node))

    # ---------------------------------------------------------------------------- lifecycle

    def announce_closed(self, node: str, outputs: Iterable[str] | None = None) -> None:
        """After the last message of these outputs: the input brings nothing more."""
        for kept in self.out_of(node, outputs):
            kept.keeper.announce_closed()

    def announce_restarted(self, node: str) -> None:
        for kept in self.out_of(node):
            kept.keeper.announce_restarted()

    def announce_failed(self, node: str, error: str) -> None:
        for kept in self.out_of(node):
            kept.keeper.announce_failed(error)

    def announce_closed_again(self, node: str, inputs: Iterable[str]) -> None:
        """Tell a new process of a consumer what an earlier one was told."""
        wanted = set(inputs)
        for kept in self.into(node):
            if kept.edge.input in wanted:
                kept.keeper.announce_closed()

    def consumer_died(self, node: str) -> None:
        """The process that read these queues was reaped: what it held is free."""
        for kept in self.into(node):
            kept.keeper.consumer_died()

    def producer_died(self, writer: str, incarnation: int) -> None:
        """The process was reaped; call it before anything is announced."""
        waits = [(q, q.keeper.sent_sequence()) for q in self.written_by(writer)]
        if any(incarnation == owner for owner, _ in self._segments):
            self._graves.append(Grave(incarnation, waits))

    @property
    def untidy(self) -> bool:
        """Whether `tidy` has something to wait for."""
        return bool(self._graves) or any(q.keeper.needs_retry for q in self._queues.values())

    def tidy(self) -> None:
        """Write announcements that did not fit, close segments that nothing refers to."""
        for kept in self._queues.values():
            if kept.keeper.needs_retry:
                kept.keeper.retry()
        left = []
        for grave in self._graves:
            grave.waits_for = [
                (q, last) for q, last in grave.waits_for if q.keeper.may_reference(last)
            ]
            if grave.waits_for:
                left.append(grave)
            else:
                self._close_segments(grave.incarnation)
        self._graves = left

    # ----------------------------------------------------------------------------- segments

    def add_segment(self, incarnation: int, number: int, descriptor: int, size: int) -> None:
        """Take over a segment's descriptor."""
        self.remove_segment(incarnation, number)
        self._segments[incarnation, number] = (descriptor, size)

    def segment(self, incarnation: int, number: int) -> tuple[int, int] | None:
        """Descriptor (still ours) and size of a segment."""
        return self._segments.get((incarnation, number))

    def remove_segment(self, incarnation: int, number: int) -> None:
        """Close a segment that nothing refers to any more; an unknown one is ignored."""
        entry = self._segments.pop((incarnation, number), None)
        if entry is not None:
            with suppress(OSError):
                os.close(entry[0])

    def segment_bytes(self, incarnation: int) -> int:
        """Size of all segments of one process."""
        return sum(size for (owner, _), (_, size) in self._segments.items() if owner == incarnation)

    def _close_segments(self, incarnation: int) -> None:
        for owner, number in [k for k in self._segments if k[0] == incarnation]:
            self.remove_segment(owner, number)

    def close(self) -> None:
        """Close every queue, every segment and the board."""
        if self._closed:
            return
        self._closed = True
        for kept in self._queues.values():
            kept.keeper.close()
        self._queues.clear()
        for owner, number in list(self._segments):
            self.remove_segment(owner, number)
        self._graves.clear()
        self.board.close()
        # The mapping goes with the last one who refers to the board.
        del self.board
