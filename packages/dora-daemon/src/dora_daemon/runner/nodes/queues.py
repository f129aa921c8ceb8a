"""Queues of all inputs on this machine.

The runner creates each queue before its ends start and keeps it open, so that samples which are
sent early, or while a consumer restarts, stay queued.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import LogSource
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine import commands
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.streams import RUNNER_NODE, shown_target
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.producer.pool import POOL_SIZE_VARIABLE, parse_pool_size
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import TransportError
from dora_node_api.transport.shared.queue import QueueEnds, create_queue, shortfall
from dora_node_api.transport.shared.queue_keeper import QueueKeeper
from dora_node_api.transport.shared.specs import QueueSpec

if TYPE_CHECKING:
    from dora_config.protocol.runner import EdgeStatus

MAX_HOLD = 64 << 20
"""Default of a hold limit in bytes: a quarter of the smallest default pool of a node."""

NO_LIMIT = 1 << 62
"""Hold limit above the size of any pool, in bytes."""

CLEANUP_SECONDS = 0.05
"""Seconds between attempts of pending announcements and removals of segments."""


def hold_limit(producer: ResolvedNode | None, environ: Mapping[str, str]) -> int:
    """Return the bytes of a producer's pool that one consumer may keep before it gets copies.

    A quarter of a configured pool size, so that a consumer that keeps arrays leaves room.
    """
    if producer is None:
        return MAX_HOLD
    size = producer.shared_memory_pool_size
    if size is None:
        given = producer.env.get(POOL_SIZE_VARIABLE, environ.get(POOL_SIZE_VARIABLE))
        size = parse_pool_size(given) if isinstance(given, str) else None
    return MAX_HOLD if size is None else size // 4


def duplicate(descriptors: Iterable[int]) -> list[int]:
    """Return a copy of each descriptor. Raises OSError, and leaves no copy open then."""
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError:
        for copy in copies:
            os.close(copy)
        raise
    return copies


@dataclass(slots=True)
class QueueEntry:
    """One queue and its edge."""

    edge: Edge
    spec: QueueSpec
    ends: QueueEnds
    keeper: QueueKeeper
    writer: str
    """Node whose process writes into it: the link if the source is a node of another machine, the
    runner for log entries and lines that are sent as samples."""
    log_source: LogSource | None = None
    """Nodes and levels whose log lines the runner sends to this queue."""
    _noted: tuple[int, int] = (0, 0)
    """Messages sent and dropped up to the last `note`."""
    _recent: tuple[int, int] = (0, 0)
    """Messages sent and dropped between the last two calls of `note`."""

    def note(self) -> None:
        """Note the counters; call this at intervals of `RECENT_SECONDS`."""
        counted = self.keeper.statistics()
        sent, dropped = self._noted
        self._recent = max(0, counted.sent - sent), max(0, counted.dropped - dropped)
        self._noted = counted.sent, counted.dropped

    def status(self) -> EdgeStatus:
        """Return the counters as reported on the control socket."""
        # `dora run` needs none of these messages.
        from dora_config.protocol.runner import EdgeStatus, quantile

        counted = self.keeper.statistics()
        edge = self.edge
        idle = None
        if counted.last_arrival_ns:
            idle = max(0.0, (time.monotonic_ns() - counted.last_arrival_ns) / 1e9)
        latency: dict[str, float] = {}
        for name, fraction in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            seconds = quantile(counted.latency, fraction)
            if seconds is not None:
                latency[name] = seconds * 1e6
        return EdgeStatus(
            source=f"{edge.source}/{edge.output}",
            target=shown_target(edge),
            policy=self.spec.policy,
            bound=self.spec.bound,
            sent=counted.sent,
            received=counted.received,
            dropped=counted.dropped,
            unmatched=counted.unmatched,
            recent_sent=self._recent[0],
            recent_dropped=self._recent[1],
            queued=counted.queued,
            bytes_sent=counted.bytes_sent,
            bytes_received=counted.bytes_received,
            blocked=counted.blocked,
            idle_seconds=idle,
            latency_us=latency,
            latency_counts=counted.latency,
        )


@dataclass(slots=True)
class RetiredProducer:
    """An ended process whose segments are kept while a queue may refer to them."""

    incarnation: int
    queues: list[tuple[QueueEntry, int]] = field(default_factory=list)
    """Queues it wrote into, each with the last sequence number it used there."""


class QueueRegistry:
    """All queues of a dataflow on this machine."""

    def __init__(
        self,
        board: Board,
        segments: SegmentTable,
        warn: Callable[[str, str], None] = lambda node, text: None,
    ) -> None:
        """``warn`` is called once, with the node whose queue is smaller than configured."""
        self.board = board
        self._segments = segments
        self._warn = warn
        self._warned = False
        self._queues: dict[Edge, QueueEntry] = {}
        self._into: defaultdict[str, dict[Edge, QueueEntry]] = defaultdict(dict)
        self._out_of: defaultdict[str, dict[Edge, QueueEntry]] = defaultdict(dict)
        """`_queues` by target and by source: each status reads the queues of each node."""
        self.dropped_before: dict[str, int] = {}
        """Messages that closed queues have dropped, by edge."""
        self._of_lines: set[str] = set()
        """Edges whose messages the runner sends: log entries and printed lines."""
        self._numbers = 0
        self._retired: list[RetiredProducer] = []
        self._cleanup: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------ queues

    def ensure(
        self,
        edge: Edge,
        *,
        bound: int,
        policy: QueuePolicy = QueuePolicy.DROP_OLDEST,
        writer: str | None = None,
        log_source: LogSource | None = None,
        hold_limit: int = MAX_HOLD,
        journal: bool = False,
    ) -> tuple[QueueEntry, bool]:
        """Return the queue of an edge, and whether it is new. Raises QueueUnavailable.

        ``writer``: see `QueueEntry`, by default the source of the edge. With a ``journal``,
        messages that the consumer has received are not lost when it is killed, except ordinary
        ones of a drop_oldest queue.
        """
        entry = self._queues.get(edge)
        if entry is not None:
            return entry, False
        try:
            if writer == RUNNER_NODE:  # the runner never waits
                policy = QueuePolicy.DROP_OLDEST
            remote = writer == LINK_NODE
            spec, ends = self._create(
                edge, bound, policy, hold_limit, journal=journal, remote=remote
            )
        except (OSError, ValueError, TransportError) as error:
            raise QueueUnavailable(
                f"cannot create the queue of edge {edge}: {error}. Each edge takes up to six file"
                f" descriptors, {len(self._queues)} have theirs; raise the limit (`ulimit -n`)"
            ) from error
        if not self._warned and (short := shortfall(spec, ends)) is not None:
            self._warned = True
            self._warn(edge.target, f"{edge}: {short}. Other queues may be as short")
        keeper = QueueKeeper(self.board, spec, ends)
        if writer == RUNNER_NODE:
            self._of_lines.add(spec.edge)
        entry = QueueEntry(edge, spec, ends, keeper, writer or edge.source, log_source)
        self._queues[edge] = self._into[edge.target][edge] = self._out_of[edge.source][edge] = entry
        return entry, True

    def _create(
        self,
        edge: Edge,
        bound: int,
        policy: QueuePolicy,
        hold_limit: int,
        *,
        journal: bool,
        remote: bool,
    ) -> tuple[QueueSpec, QueueEnds]:
        area, slots = self.board.allocate_edge(bound, journal=journal)
        try:
            self._numbers += 1
            spec = QueueSpec(
                queue=self._numbers,
                producer=edge.source,
                output=edge.output,
                consumer=edge.target,
                input=edge.input,
                policy=policy,
                bound=bound,
                area=area,
                ledger_slots=slots,
                hold_limit=hold_limit,
                journal=journal,
                remote=remote,
            )
            return spec, create_queue(spec)
        except BaseException:
            self.board.free_edge(area)
            raise

    def get(self, edge: Edge) -> QueueEntry | None:
        return self._queues.get(edge)

    def all(self) -> list[QueueEntry]:
        """Return every queue in the order of creation."""
        return list(self._queues.values())

    def into(self, node: str) -> list[QueueEntry]:
        """Return the queues that a node reads."""
        return list(self._into.get(node, {}).values())

    def out_of(self, node: str, outputs: Iterable[str] | None = None) -> list[QueueEntry]:
        """Return the queues of a node's outputs (``None``: all)."""
        wanted = None if outputs is None else set(outputs)
        found = self._out_of.get(node, {}).values()
        return [entry for entry in found if wanted is None or entry.edge.output in wanted]

    def written_by(self, writer: str) -> list[QueueEntry]:
        """Return the queues that a process writes into: a node's, the link's or the runner's."""
        return [entry for entry in self._queues.values() if entry.writer == writer]

    def drop(self, edge: Edge) -> None:
        """Close a queue, which must have been removed from its producer."""
        entry = self._queues.pop(edge, None)
        if entry is None:
            return
        del self._into[edge.target][edge], self._out_of[edge.source][edge]
        before = self.dropped_before.get(entry.spec.edge, 0)
        self.dropped_before[entry.spec.edge] = before + entry.keeper.statistics().dropped
        for producer in self._retired:
            producer.queues = [pair for pair in producer.queues if pair[0] is not entry]
        entry.keeper.close()

    def queued(self, node: str | None) -> int:
        """Return the number of messages queued at all inputs of a node; None: of all nodes."""
        return sum(entry.ends.depth() for entry in self._of(node))

    def received(self, node: str | None) -> int:
        """Return the number of messages received at all inputs of a node; None: of all nodes."""
        return sum(entry.keeper.statistics().received for entry in self._of(node))

    def _of(self, node: str | None) -> list[QueueEntry]:
        return self.all() if node is None else self.into(node)

    def dropped(self) -> dict[str, int]:
        """Return by edge how many messages were dropped; lines and log entries do not count."""
        found = Counter(self.dropped_before)
        for entry in self.all():
            found[entry.spec.edge] += entry.keeper.statistics().dropped
        return {edge: found[edge] for edge in found if found[edge] and edge not in self._of_lines}

    # ---------------------------------------------------------------------------- lifecycle

    def announce(self, command: commands.Announcement) -> None:
        """Announce the end, restart or failure of outputs, after their last message."""
        match command:
            case commands.AnnounceClosed(node=node, outputs=outputs):
                for entry in self.out_of(node, outputs):
                    entry.keeper.announce_closed()
            case commands.AnnounceRestarted(node=node):
                for entry in self.out_of(node):
                    entry.keeper.announce_restarted()
            case commands.AnnounceFailed(node=node, error=error):
                for entry in self.out_of(node):
                    entry.keeper.announce_failed(error)
            case commands.RepeatClosed(node=node, inputs=inputs):
                for entry in self.into(node):
                    if entry.edge.input in inputs:
                        entry.keeper.announce_closed()

    def consumer_died(self, node: str) -> None:
        """Free the messages that the reaped process of a reader held."""
        for entry in self.into(node):
            entry.keeper.consumer_died()

    def producer_died(self, writer: str, incarnation: int) -> None:
        """Retire a reaped process; call this before anything is announced."""
        written = self.written_by(writer)
        for entry in written:
            entry.keeper.producer_died()
        queues = [(entry, entry.keeper.sent_sequence()) for entry in written]
        if self._segments.has_any(incarnation):
            self._retired.append(RetiredProducer(incarnation, queues))

    def check(self) -> tuple[dict[str, str], list[tuple[QueueEntry, str]]]:
        """Return overwritten words of the status board: by process, and by queue.

        By queue if it is unclear which of its two ends has overwritten them.
        """
        found: dict[str, str] = {}
        unclear: list[tuple[QueueEntry, str]] = []
        for entry in self._queues.values():
            entry.note()
            if (wrong := _wrong_in(entry)) is None:
                continue
            process, text = wrong
            if process is None:
                unclear.append((entry, text))
            else:
                found.setdefault(process, text)
        return found, unclear

    def overwritten_by(self, node: str) -> str | None:
        """Return how a process has overwritten its words of the status board; None: it has not."""
        wrong = map(_wrong_in, (*self.into(node), *self.written_by(node)))
        return next((one[1] for one in wrong if one is not None and one[0] == node), None)

    @property
    def needs_cleanup(self) -> bool:
        """Whether announcements or retired segments are pending."""
        return bool(self._retired) or any(q.keeper.needs_retry for q in self._queues.values())

    def schedule_cleanup(self) -> None:
        """Clean up until nothing is pending; call this after an end or an announcement."""
        if self._cleanup is None and self.needs_cleanup:
            loop = asyncio.get_running_loop()
            self._cleanup = loop.call_later(CLEANUP_SECONDS, self._run_cleanup)

    def _run_cleanup(self) -> None:
        self._cleanup = None
        self.cleanup()
        self.schedule_cleanup()

    def cleanup(self) -> None:
        """Write announcements that did not fit; close segments without references."""
        for entry in self._queues.values():
            if entry.keeper.needs_retry:
                entry.keeper.retry()
        left = []
        for producer in self._retired:
            producer.queues = [
                (entry, last) for entry, last in producer.queues if entry.keeper.may_reference(last)
            ]
            if producer.queues:
                left.append(producer)
            else:
                self._segments.remove_all(producer.incarnation)
        self._retired = left

    def close(self) -> None:
        """Close every queue and the board."""
        if self._cleanup is not None:
            self._cleanup.cancel()
        for entry in self._queues.values():
            entry.keeper.close()
        self._queues.clear()
        self._into.clear()
        self._out_of.clear()
        self._retired.clear()
        self.board.close()
        del self.board  # its memory is unmapped with the last reference


def _wrong_in(entry: QueueEntry) -> tuple[str | None, str] | None:
    """Return which process has overwritten words of a queue, if that is clear, and how."""
    problem = entry.keeper.check()
    if problem is None:
        return None
    process = {"producer": entry.writer, "consumer": entry.edge.target, None: None}[problem.by]
    return process, f"{entry.spec.edge}: {problem.text}"
