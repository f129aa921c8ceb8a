"""Order of nodes and edges, and the live page of `dora top`; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, get_args

from dora_cli import output

if TYPE_CHECKING:
    from dora_config.protocol.snapshot import EdgeRates, EdgeSummary, NodeSummary, Snapshot

T = TypeVar("T")
DASH = "-"
MB = 1024**2
GAP = 2
"""Spaces between two columns."""


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
    """Columns of high rank are left out first on a narrow terminal."""
    unless: str | None = None
    """The column is left out if all its cells have this text."""


def fitting(columns: Sequence[Column[T]], rows: Iterable[T], width: int | None) -> list[list[str]]:
    """Return titles and cells of the columns that fit ``width`` characters (None: all)."""
    shown = list(columns)
    cells = {column.title: [column.title] for column in shown}
    for row in rows:
        for column in shown:
            cells[column.title].append(column.cell(row))
    shown = [one for one in shown if one.unless is None or {*cells[one.title][1:]} - {one.unless}]
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


def _ratio(edge: EdgeSummary) -> str:
    return DASH if edge.ratio is None else f"{edge.ratio:.3f}"


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
    Column("SENT/S", lambda row: _bytes_rate(row.rates.wire_bytes), 10, unless=DASH),
    Column("RATIO", lambda row: _ratio(row.edge), 9, unless=DASH),
    Column("DROPS/S", lambda row: _rate(row.rates.drops), 6),
    Column("DROPS", lambda row: str(row.edge.dropped + row.edge.lost), 2),
    Column("UNMATCHED", lambda row: str(row.edge.unmatched), 10, unless="0"),
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
        "unmatched": edge.unmatched,
        "queue": edge.queued,
        "blocked": edge.blocked,
        "bytes": edge.bytes,
        "raw_bytes": edge.raw_bytes,
        "wire_bytes": edge.wire_bytes,
        "latency_p50": rates.p50,
        "latency_p99": rates.p99,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


View = Literal["all", "nodes", "edges"]
"""Tables that are shown."""


SortKey = Literal[
    "name", "cpu", "memory", "restarts", "queue", "messages", "bytes", "drops", "latency"
]
"""Orders of rows."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order of rows; None: the order of the table is kept."""

    key: str
    """Key of the keyboard."""
    nodes: Callable[[NodeSummary], tuple[object, ...]] | None = None
    edges: Callable[[EdgeRow], tuple[object, ...]] | None = None


def _edge_name(row: EdgeRow) -> tuple[str, str, str]:
    return (row.edge.source, row.edge.target, row.edge.dataflow)


ORDERS: Mapping[SortKey, Order] = {
    "name": Order("n", lambda node: (node.node, node.dataflow), _edge_name),
    "cpu": Order("c", lambda node: (-(node.cpu_percent or 0.0), node.node)),
    "memory": Order("m", lambda node: (-(node.memory_bytes or 0), node.node)),
    "restarts": Order("r", lambda node: (-node.restarts, node.node)),
    "queue": Order(
        "u",
        lambda node: (-node.queued, node.node),
        lambda row: (-row.edge.queued, _edge_name(row)),
    ),
    "messages": Order("s", None, lambda row: (-(row.rates.messages or 0.0), _edge_name(row))),
    "bytes": Order("b", None, lambda row: (-(row.rates.bytes or 0.0), _edge_name(row))),
    "drops": Order("d", None, lambda row: (-(row.edge.dropped + row.edge.lost), _edge_name(row))),
    "latency": Order("l", None, lambda row: (-(row.rates.p99 or 0.0), _edge_name(row))),
}
_BY_KEY = {order.key: name for name, order in ORDERS.items()}


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows and counts of the page that come from one snapshot."""

    machines: int
    nodes: tuple[NodeSummary, ...]
    edges: tuple[EdgeRow, ...]
    problems: tuple[str, ...]


def tables(before: Snapshot | None, now: Snapshot, nodes: Collection[str] = ()) -> Tables:
    """Return the rows of a snapshot; ``nodes``: only these, and edges from or to them."""
    from dora_config.protocol.snapshot import all_edge_rates

    rates = all_edge_rates(before, now)

    def concerned(end: str) -> bool:
        return any(end.startswith(f"{node}/") for node in nodes)

    return Tables(
        machines=sum(machine.connected for machine in now.machines),
        nodes=tuple(node for node in now.nodes if not nodes or node.node in nodes),
        edges=tuple(
            EdgeRow(edge, rates[edge.key])
            for edge in now.edges
            if not nodes or concerned(edge.source) or concerned(edge.target)
        ),
        problems=now.problems,
    )


class Page:
    """The live page: which tables in which order; keys change both."""

    def __init__(self, view: View = "all", sort: SortKey = "name") -> None:
        self.view = view
        self._nodes: SortKey = "name"
        self._edges: SortKey = "name"
        self.press(ORDERS[sort].key)

    def press(self, key: str) -> None:
        """Handle a key; unknown keys are ignored."""
        if key == "\t":
            views: Sequence[View] = get_args(View)
            self.view = views[(views.index(self.view) + 1) % len(views)]
        elif (sort := _BY_KEY.get(key)) is not None:
            order = ORDERS[sort]
            self._nodes = self._nodes if order.nodes is None else sort
            self._edges = self._edges if order.edges is None else sort

    def nodes(self, found: Tables) -> list[NodeSummary]:
        """Return the nodes in order."""
        key = ORDERS[self._nodes].nodes
        assert key is not None
        return sorted(found.nodes, key=key)

    def edges(self, found: Tables) -> list[EdgeRow]:
        """Return the edges in order."""
        key = ORDERS[self._edges].edges
        assert key is not None
        return sorted(found.edges, key=key)

    def lines(self, found: Tables, width: int, height: int) -> list[str]:
        """Return the lines of the page, at most ``height``."""
        lines = [self._head(found, width)]
        lines += [problem.partition("\n")[0] for problem in found.problems[:_MAX_PROBLEMS]]
        if (more := len(found.problems) - _MAX_PROBLEMS) > 0:
            lines.append(f"... {output.counted(more, 'more problem')}")
        left = height - len(lines)
        node_lines = {"all": self._shared(found, left), "nodes": left, "edges": 0}[self.view]
        if self.view != "edges":
            lines += _section(NODE_COLUMNS, self.nodes(found), width, node_lines)
        if self.view != "nodes":
            lines += _section(EDGE_COLUMNS, self.edges(found), width, left - node_lines)
        return lines

    @staticmethod
    def _shared(found: Tables, left: int) -> int:
        """Return the number of lines for the nodes if both tables share ``left`` lines."""
        node_lines, edge_lines = len(found.nodes) + _FRAME, len(found.edges) + _FRAME
        if node_lines + edge_lines <= left:
            return node_lines
        return min(
            node_lines, left if left < 2 * _MIN_TABLE_LINES else max(left // 2, left - edge_lines)
        )

    def _head(self, found: Tables, width: int) -> str:
        shown = output.counted(found.machines, "machine")
        keys = []
        if self.view != "edges":
            shown += f", {output.counted(len(found.nodes), 'node')}"
            shown += f" by {self._nodes}"
            keys += [order.key for order in ORDERS.values() if order.nodes]
        if self.view != "nodes":
            shown += f", {output.counted(len(found.edges), 'edge')}"
            shown += f" by {self._edges}"
            keys += [order.key for order in ORDERS.values() if order.edges]
        full = f"{shown}   ({' '.join(dict.fromkeys(keys))}: sort, tab: tables, q: quit)"
        return full if len(full) <= width else shown


_MAX_PROBLEMS = 3
"""Problems that are shown."""
_FRAME = 2
"""Lines of a table besides its rows: an empty one and the titles."""
_MIN_TABLE_LINES = _FRAME + 2
"""Lines of the smallest table; with less room for two tables, the nodes get all lines."""


def _section(columns: Sequence[Column[T]], rows: Sequence[T], width: int, height: int) -> list[str]:
    """Return a table of at most ``height`` lines; the last one counts the rows without room."""
    room = height - _FRAME
    if room < 1:
        return []
    cut = rows if len(rows) <= room else rows[: room - 1]
    titles, *cells = fitting(columns, cut, width)
    lines = ["", *output.aligned(titles, cells).splitlines()]
    if len(cut) < len(rows):
        lines.append(f"... {len(rows) - len(cut)} more")
    return lines
