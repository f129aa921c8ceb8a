"""Metrics of a cluster from a snapshot; pure.

Labels are ids that the descriptor or the cluster file contains, and only those of running
dataflows, so that the number of series is bounded by the number of running nodes and edges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar, get_args

from dora_config.protocol import snapshot as snapshots
from dora_config.protocol.runner import LatencyCounts, ShownState

T = TypeVar("T")

LATENCY_BOUNDS: Final = tuple(1024 * 4**power for power in range(12))
"""Upper bounds of the exported latency buckets in nanoseconds: 1 us to 4.3 s. Each is also a bound
of a bucket that nodes count in, so that no message is counted in a wrong one."""


class MetricKind(StrEnum):
    """Types of OpenMetrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Value of a histogram."""

    counts: tuple[int, ...]
    """Messages in each bucket of :data:`LATENCY_BOUNDS`, and above the last bound."""
    total: float
    """Sum of the latencies in seconds, exact to 25 %."""


@dataclass(frozen=True, slots=True)
class MetricSample:
    labels: tuple[str, ...]
    value: float | Distribution


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: ``name`` ends with the unit and has no suffix of its type."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...]
    samples: tuple[MetricSample, ...]

    @property
    def unit(self) -> str:
        """Return ``seconds``, ``bytes`` or an empty text."""
        end = self.name.rpartition("_")[2]
        return end if end in ("seconds", "bytes") else ""


@dataclass(frozen=True, slots=True)
class _Definition(Generic[T]):
    """One metric of machines, links, nodes or edges; a value of None is left out."""

    name: str
    kind: MetricKind
    help: str
    value: Callable[[T], float | Distribution | None]

    def family(self, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], T]]) -> Family:
        """``rows``: values of the labels, and what is measured."""
        found = ((key, self.value(row)) for key, row in rows)
        samples = tuple(MetricSample(key, value) for key, value in found if value is not None)
        return Family(self.name, self.kind, self.help, labels, samples)


def _of_load(
    value: Callable[[snapshots.MachineLoad], float],
) -> Callable[[snapshots.MachineSummary], float | None]:
    return lambda machine: None if machine.load is None else value(machine.load)


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6


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


def _gauge(name: str, text: str, value: Callable[[T], float | None]) -> _Definition[T]:
    return _Definition(name, MetricKind.GAUGE, text, value)


def _counter(name: str, text: str, value: Callable[[T], float | None]) -> _Definition[T]:
    return _Definition(name, MetricKind.COUNTER, text, value)


MACHINES: tuple[_Definition[snapshots.MachineSummary], ...] = (
    _gauge(
        "dora_machine_up",
        "Whether the daemon is connected.",
        lambda machine: float(machine.connected),
    ),
    _gauge(
        "dora_machine_heartbeat_age_seconds",
        "Time since the last heartbeat.",
        lambda machine: machine.heartbeat_age,
    ),
    _gauge(
        "dora_machine_clock_offset_seconds",
        "Time by which the machine's clock is ahead of the coordinator's.",
        lambda machine: machine.clock_offset,
    ),
    _gauge("dora_machine_cpus", "Number of CPUs.", _of_load(lambda load: load.cpus)),
    _counter(
        "dora_machine_cpu_seconds",
        "Time for which the CPUs were busy.",
        _of_load(lambda load: load.cpu_seconds),
    ),
    _gauge(
        "dora_machine_memory_used_bytes", "Memory in use.", _of_load(lambda load: load.memory_bytes)
    ),
    _gauge(
        "dora_machine_memory_size_bytes",
        "Memory of the machine.",
        _of_load(lambda load: load.memory_total_bytes),
    ),
)
LINKS: tuple[_Definition[snapshots.LinkSummary], ...] = (
    _gauge(
        "dora_link_up",
        "Whether messages pass between two machines of a dataflow.",
        lambda link: float(link.state == "connected"),
    ),
    _gauge(
        "dora_link_round_trip_seconds",
        "Median round trip to the peer.",
        lambda link: _seconds(link.rtt_us),
    ),
    _gauge(
        "dora_link_clock_offset_seconds",
        "Time by which the peer's clock is ahead of the machine's.",
        lambda link: _seconds(link.clock_offset_us),
    ),
)
NODES: tuple[_Definition[snapshots.NodeSummary], ...] = (
    _gauge(
        "dora_node_up",
        "Whether the node runs.",
        lambda node: float(node.status in ("Running", "Degraded")),
    ),
    _counter(
        "dora_node_cpu_seconds",
        "CPU time of the node and its children.",
        lambda node: node.cpu_seconds,
    ),
    _gauge(
        "dora_node_memory_bytes",
        "Resident memory of the node and its children.",
        lambda node: node.memory_bytes,
    ),
    _counter("dora_node_restarts", "Restarts of the node.", lambda node: node.restarts),
    _gauge(
        "dora_node_queued_messages",
        "Messages in the queues of its inputs.",
        lambda node: node.queued,
    ),
    _counter(
        "dora_node_read_bytes",
        "Bytes that the node and its children read from disks.",
        lambda node: node.read_bytes,
    ),
    _counter(
        "dora_node_written_bytes",
        "Bytes that the node and its children wrote to disks.",
        lambda node: node.written_bytes,
    ),
)
EDGES: tuple[_Definition[snapshots.EdgeSummary], ...] = (
    _counter("dora_edge_sent_messages", "Messages sent.", lambda edge: edge.sent),
    _counter("dora_edge_received_messages", "Messages received.", lambda edge: edge.received),
    _counter(
        "dora_edge_dropped_messages", "Messages dropped by full queues.", lambda edge: edge.dropped
    ),
    _counter(
        "dora_edge_unmatched_messages",
        "Received messages that were in no sample of `Node.joined`.",
        lambda edge: edge.unmatched,
    ),
    _counter("dora_edge_lost_messages", "Messages lost between machines.", lambda edge: edge.lost),
    _gauge(
        "dora_edge_queued_messages",
        "Messages in queues and between machines.",
        lambda edge: edge.queued,
    ),
    _counter(
        "dora_edge_received_bytes", "Bytes of the received messages.", lambda edge: edge.bytes
    ),
    _counter(
        "dora_edge_sent_raw_bytes",
        "Bytes of the messages that were sent to another machine, before `compress`.",
        lambda edge: edge.raw_bytes or None,
    ),
    _counter(
        "dora_edge_sent_wire_bytes",
        "Bytes of these messages between the machines.",
        lambda edge: edge.wire_bytes or None,
    ),
    _gauge(
        "dora_edge_blocked",
        "Whether the source waits for a full queue.",
        lambda edge: float(edge.blocked),
    ),
    _Definition(
        "dora_edge_latency_seconds",
        MetricKind.HISTOGRAM,
        "Time from send to receipt.",
        lambda edge: distribution(edge.latency),
    ),
)


def families(snapshot: snapshots.Snapshot, *, max_edges: int) -> list[Family]:
    """Return the metrics of a snapshot; further edges than ``max_edges`` are only counted."""
    named = {node.dataflow: node.dataflow_name or node.dataflow for node in snapshot.nodes}
    edges = snapshot.edges[:max_edges]
    machine_rows = [((machine.daemon,), machine) for machine in snapshot.machines]
    link_rows = [
        ((named.get(link.dataflow, link.dataflow), link.machine, link.peer), link)
        for machine in snapshot.machines
        for link in machine.links
    ]
    node_rows = [
        ((named[node.dataflow], node.daemon, node.node), node)
        for node in snapshot.nodes
        if node.status not in ("Finished", "Stopped")
    ]
    edge_rows = [(_edge_labels(edge), edge) for edge in edges]
    return [
        *(one.family(("machine",), machine_rows) for one in MACHINES),
        *(one.family(("dataflow", "machine", "peer"), link_rows) for one in LINKS),
        _node_states(snapshot.nodes),
        *(one.family(("dataflow", "machine", "node"), node_rows) for one in NODES),
        *(one.family(EDGE_LABELS, edge_rows) for one in EDGES),
        _single(
            "dora_edges_omitted",
            "Edges without metrics, because there are too many; see the setting metrics_edges.",
            len(snapshot.edges) - len(edges),
        ),
        _single(
            "dora_snapshot_problems",
            "Machines and runners that did not report their edges.",
            len(snapshot.problems),
        ),
    ]


EDGE_LABELS = ("dataflow", "source", "target", "source_machine", "target_machine")


def _edge_labels(edge: snapshots.EdgeSummary) -> tuple[str, ...]:
    dataflow = edge.dataflow_name or edge.dataflow
    return (dataflow, edge.source, edge.target, edge.source_machine, edge.target_machine)


def _single(name: str, text: str, value: float) -> Family:
    return Family(name, MetricKind.GAUGE, text, (), (MetricSample((), value),))


def _node_states(nodes: Iterable[snapshots.NodeSummary]) -> Family:
    counted = Counter((node.dataflow_name or node.dataflow, node.status) for node in nodes)
    dataflows = dict.fromkeys(dataflow for dataflow, _ in counted)
    states: tuple[ShownState, ...] = get_args(ShownState)
    return Family(
        "dora_nodes",
        MetricKind.GAUGE,
        "Number of nodes in a state.",
        ("dataflow", "state"),
        tuple(
            MetricSample((dataflow, state), counted[dataflow, state])
            for dataflow in dataflows
            for state in states
        ),
    )
