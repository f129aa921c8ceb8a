"""Columns of the tables of `dora top`, and the choice of those that fit a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dora_config.protocol.snapshot import EdgeRates, EdgeSummary, NodeSummary

T = TypeVar("T")
DASH = "-"
MB = 1024**2
GAP = 2


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """An edge with its rates since the previous snapshot."""

    edge: EdgeSummary
    rates: EdgeRates


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    title: str
    cell: Callable[[T], str]
    rank: int
    """On a narrow terminal, columns of high rank are left out first."""


def fitting(columns: Sequence[Column[T]], rows: Iterable[T], width: int | None) -> list[list[str]]:
    """Return titles and cells of the columns that fit ``width`` characters (None: all)."""
    shown = list(columns)
    cells = {column.title: [column.title] for column in shown}
    for row in rows:
        for column in shown:
            cells[column.title].append(column.cell(row))
    widths = {title: max(map(len, texts)) for title, texts in cells.items()}
    while width is not None and len(shown) > 1:
        if sum(widths[column.title] + GAP for column in shown) - GAP <= width:
            break
        shown.remove(max(shown, key=lambda column: column.rank))
    return [list(line) for line in zip(*(cells[column.title] for column in shown), strict=True)]


def _megabytes(size: int | None) -> str:
    return DASH if size is None else f"{size / MB:.1f}"


def _rate(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _bytes_rate(value: float | None) -> str:
    if value is None:
        return DASH
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _node_queue(node: NodeSummary) -> str:
    blocked = f" (blocked on {node.blocked_on})" if node.blocked_on else ""
    return f"{node.queued}{blocked}"


def _machines(row: EdgeRow) -> str:
    edge = row.edge
    if edge.source_machine == edge.target_machine:
        return edge.target_machine
    return f"{edge.source_machine} -> {edge.target_machine}"


NODE_COLUMNS: tuple[Column[NodeSummary], ...] = (
    Column("NODE", lambda node: node.node, 0),
    Column("STATUS", lambda node: node.status, 1),
    Column("DATAFLOW", lambda node: node.dataflow_name or node.dataflow, 6),
    Column("MACHINE", lambda node: node.daemon, 7),
    Column("PID", lambda node: DASH if node.pid is None else str(node.pid), 8),
    Column("CPU%", lambda node: _rate(node.cpu_percent), 2),
    Column("MEMORY (MB)", lambda node: _megabytes(node.memory_bytes), 3),
    Column("RESTARTS", lambda node: str(node.restarts), 5),
    Column("QUEUE", _node_queue, 4),
    Column("I/O READ", lambda node: _megabytes(node.read_bytes), 9),
    Column("I/O WRITE", lambda node: _megabytes(node.written_bytes), 10),
)
EDGE_COLUMNS: tuple[Column[EdgeRow], ...] = (
    Column("EDGE", lambda row: f"{row.edge.source} -> {row.edge.target}", 0),
    Column("DATAFLOW", lambda row: row.edge.dataflow_name or row.edge.dataflow, 8),
    Column("MACHINE", _machines, 7),
    Column("MSG/S", lambda row: _rate(row.rates.messages), 1),
    Column("BYTES/S", lambda row: _bytes_rate(row.rates.bytes), 4),
    Column("DROPS/S", lambda row: _rate(row.rates.drops), 6),
    Column("DROPS", lambda row: str(row.edge.dropped + row.edge.lost), 2),
    Column("QUEUE", lambda row: f"{row.edge.queued}{' (blocked)' if row.edge.blocked else ''}", 3),
    Column("P50", lambda row: _latency(row.rates.p50), 9),
    Column("P99", lambda row: _latency(row.rates.p99), 5),
)


def node_json(node: NodeSummary) -> dict[str, object]:
    """Return a node as a JSON object; sizes in bytes."""
    return {
        "kind": "node",
        "node": node.node,
        "status": node.status,
        "dataflow": node.dataflow,
        "dataflow_name": node.dataflow_name,
        "machine": node.daemon,
        "pid": node.pid,
        "cpu": node.cpu_percent,
        "memory": node.memory_bytes,
        "restarts": node.restarts,
        "queue": node.queued,
        "blocked_on": node.blocked_on,
        "io_read": node.read_bytes,
        "io_write": node.written_bytes,
    }


def edge_json(row: EdgeRow) -> dict[str, object]:
    """Return an edge as a JSON object; rates per second, latencies in seconds."""
    edge, rates = row.edge, row.rates
    return {
        "kind": "edge",
        "source": edge.source,
        "target": edge.target,
        "dataflow": edge.dataflow,
        "dataflow_name": edge.dataflow_name,
        "source_machine": edge.source_machine,
        "target_machine": edge.target_machine,
        "messages_per_second": _rounded(rates.messages),
        "bytes_per_second": _rounded(rates.bytes),
        "drops_per_second": _rounded(rates.drops),
        "sent": edge.sent,
        "received": edge.received,
        "dropped": edge.dropped,
        "lost": edge.lost,
        "queue": edge.queued,
        "blocked": edge.blocked,
        "bytes": edge.bytes,
        "latency_p50": rates.p50,
        "latency_p99": rates.p99,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
