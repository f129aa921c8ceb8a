"""Metrics of a cluster from a snapshot; pure.

Labels are ids that the descriptor or the cluster file contains, and only those of running
dataflows, so that the number of series is bounded by the number of running nodes and edges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, get_args

from dora_config.protocol.dataflow import NodeView
from dora_config.protocol.runner import LatencyCounts
from dora_config.protocol.snapshot import (
    EdgeSummary,
    LinkSummary,
    MachineSummary,
    NodeSummary,
    Snapshot,
)

LATENCY_BOUNDS: Final = tuple(1024 * 4**power for power in range(12))
"""Upper bounds of the exported latency buckets in nanoseconds: 1 us to 4.3 s. Each is also a bound
of a bucket that nodes count in, so that no message is counted in a wrong one."""


class Kind(StrEnum):
    """Types of OpenMetrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Value of a histogram."""

    counts: tuple[int, ...]
    """Messages in each bucket of :data:`LATENCY_BOUNDS` and above the last."""
    total: float
    """Sum of the latencies in seconds, exact to 25 %."""


@dataclass(frozen=True, slots=True)
class Sample:
    labels: tuple[str, ...]
    value: float | Distribution


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: ``name`` ends with the unit and has no suffix of its type."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    unit: str = ""
    """``seconds``, ``bytes`` or empty."""


def families(snapshot: Snapshot, *, max_edges: int) -> list[Family]:
    """Return the metrics of a snapshot; further edges than ``max_edges`` are only counted."""
    running = [node for node in snapshot.nodes if node.status not in ("Finished", "Stopped")]
    links = [link for machine in snapshot.machines for link in machine.links]
    named = {node.dataflow: node.dataflow_name or node.dataflow for node in snapshot.nodes}
    edges = snapshot.edges[:max_edges]
    return [
        *_machines(snapshot.machines),
        *_links(links, named),
        _node_states(snapshot.nodes),
        *_nodes(running),
        *_edges(edges),
        _one(
            "dora_edges_omitted",
            "Edges without metrics, because there are too many; see the setting metrics_edges.",
            len(snapshot.edges) - len(edges),
        ),
        _one(
            "dora_snapshot_problems",
            "Machines and runners that did not report their edges.",
            len(snapshot.problems),
        ),
    ]


def _one(name: str, text: str, value: float) -> Family:
    return Family(name, Kind.GAUGE, text, (), (Sample((), value),))


def _machines(machines: Sequence[MachineSummary]) -> Iterator[Family]:
    def family(
        name: str,
        kind: Kind,
        text: str,
        value: Callable[[MachineSummary], float | None],
        unit: str = "",
    ) -> Family:
        found = ((machine.daemon, value(machine)) for machine in machines)
        samples = tuple(Sample((key,), one) for key, one in found if one is not None)
        return Family(f"dora_machine_{name}", kind, text, ("machine",), samples, unit)

    yield family(
        "up", Kind.GAUGE, "Whether the daemon is connected.", lambda one: float(one.connected)
    )
    yield family(
        "heartbeat_age_seconds",
        Kind.GAUGE,
        "Time since the last heartbeat.",
        lambda one: one.heartbeat_age,
        "seconds",
    )
    yield family(
        "clock_offset_seconds",
        Kind.GAUGE,
        "Time by which the clock of the machine is ahead of that of the coordinator.",
        lambda one: one.clock_offset,
        "seconds",
    )
    yield family(
        "cpus", Kind.GAUGE, "Number of CPUs.", lambda one: one.load and float(one.load.cpus)
    )
    yield family(
        "cpu_seconds",
        Kind.COUNTER,
        "Time for which the CPUs were busy.",
        lambda one: one.load and one.load.cpu_seconds,
        "seconds",
    )
    yield family(
        "memory_used_bytes",
        Kind.GAUGE,
        "Memory in use.",
        lambda one: one.load and float(one.load.memory_bytes),
        "bytes",
    )
    yield family(
        "memory_size_bytes",
        Kind.GAUGE,
        "Memory of the machine.",
        lambda one: one.load and float(one.load.memory_total_bytes),
        "bytes",
    )


def _links(links: Sequence[LinkSummary], named: dict[str, str]) -> Iterator[Family]:
    def family(
        name: str, text: str, value: Callable[[LinkSummary], float | None], unit: str = ""
    ) -> Family:
        samples = tuple(
            Sample((named.get(link.dataflow, link.dataflow), link.machine, link.peer), found)
            for link in links
            if (found := value(link)) is not None
        )
        labels = ("dataflow", "machine", "peer")
        return Family(f"dora_link_{name}", Kind.GAUGE, text, labels, samples, unit)

    yield family(
        "up",
        "Whether messages pass between two machines of a dataflow.",
        lambda link: float(link.state == "proven"),
    )
    yield family(
        "round_trip_seconds",
        "Median round trip to the peer.",
        lambda link: None if link.rtt_us is None else link.rtt_us / 1e6,
        "seconds",
    )
    yield family(
        "clock_offset_seconds",
        "Time by which the clock of the peer is ahead of that of the machine.",
        lambda link: None if link.clock_offset_us is None else link.clock_offset_us / 1e6,
        "seconds",
    )


def _node_states(nodes: Iterable[NodeSummary]) -> Family:
    counted = Counter((node.dataflow_name or node.dataflow, node.status) for node in nodes)
    dataflows = dict.fromkeys(dataflow for dataflow, _ in counted)
    states: tuple[NodeView, ...] = get_args(NodeView)
    return Family(
        "dora_nodes",
        Kind.GAUGE,
        "Number of nodes in a state.",
        ("dataflow", "state"),
        tuple(
            Sample((dataflow, state), counted[dataflow, state])
            for dataflow in dataflows
            for state in states
        ),
    )


def _nodes(nodes: Sequence[NodeSummary]) -> Iterator[Family]:
    def family(
        name: str,
        kind: Kind,
        text: str,
        value: Callable[[NodeSummary], float | None],
        unit: str = "",
    ) -> Family:
        samples = tuple(
            Sample((node.dataflow_name or node.dataflow, node.daemon, node.node), found)
            for node in nodes
            if (found := value(node)) is not None
        )
        labels = ("dataflow", "machine", "node")
        return Family(f"dora_node_{name}", kind, text, labels, samples, unit)

    yield family(
        "up",
        Kind.GAUGE,
        "Whether the node runs.",
        lambda node: float(node.status in ("Running", "Degraded")),
    )
    yield family(
        "cpu_seconds",
        Kind.COUNTER,
        "CPU time of the node and its children.",
        lambda node: node.cpu_seconds,
        "seconds",
    )
    yield family(
        "memory_bytes",
        Kind.GAUGE,
        "Resident memory of the node and its children.",
        lambda node: node.memory_bytes,
        "bytes",
    )
    yield family("restarts", Kind.COUNTER, "Restarts of the node.", lambda node: node.restarts)
    yield family(
        "queued_messages", Kind.GAUGE, "Messages in the queues of its inputs.", lambda n: n.queued
    )
    yield family(
        "read_bytes",
        Kind.COUNTER,
        "Bytes that the node and its children read from disks.",
        lambda node: node.read_bytes,
        "bytes",
    )
    yield family(
        "written_bytes",
        Kind.COUNTER,
        "Bytes that the node and its children wrote to disks.",
        lambda node: node.written_bytes,
        "bytes",
    )


def _edges(edges: Sequence[EdgeSummary]) -> Iterator[Family]:
    labels = ("dataflow", "source", "target", "source_machine", "target_machine")
    keys = [
        (
            edge.dataflow_name or edge.dataflow,
            edge.source,
            edge.target,
            edge.source_machine,
            edge.target_machine,
        )
        for edge in edges
    ]

    def family(
        name: str,
        kind: Kind,
        text: str,
        value: Callable[[EdgeSummary], float | Distribution],
        unit: str = "",
    ) -> Family:
        samples = tuple(Sample(key, value(edge)) for key, edge in zip(keys, edges, strict=True))
        return Family(f"dora_edge_{name}", kind, text, labels, samples, unit)

    yield family("sent_messages", Kind.COUNTER, "Messages sent.", lambda edge: edge.sent)
    yield family(
        "received_messages", Kind.COUNTER, "Messages received.", lambda edge: edge.received
    )
    yield family(
        "dropped_messages",
        Kind.COUNTER,
        "Messages dropped by full queues.",
        lambda edge: edge.dropped,
    )
    yield family(
        "lost_messages", Kind.COUNTER, "Messages lost between machines.", lambda edge: edge.lost
    )
    yield family(
        "queued_messages",
        Kind.GAUGE,
        "Messages in queues and between machines.",
        lambda edge: edge.queued,
    )
    yield family(
        "received_bytes",
        Kind.COUNTER,
        "Bytes of the received messages.",
        lambda edge: edge.bytes,
        "bytes",
    )
    yield family(
        "blocked",
        Kind.GAUGE,
        "Whether the source waits for a full queue.",
        lambda edge: float(edge.blocked),
    )
    yield family(
        "latency_seconds",
        Kind.HISTOGRAM,
        "Time from send to receipt.",
        lambda edge: distribution(edge.latency),
        "seconds",
    )


def distribution(latency: LatencyCounts) -> Distribution:
    """Return the exported buckets of a latency histogram."""
    counts = [0] * (len(LATENCY_BOUNDS) + 1)
    total = 0.0
    index = 0
    for bound, count in latency:
        while index < len(LATENCY_BOUNDS) and bound > LATENCY_BOUNDS[index]:
            index += 1
        counts[index] += count
        total += bound * count
    return Distribution(tuple(counts), total / 1e9)
