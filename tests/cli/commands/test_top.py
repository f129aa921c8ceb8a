"""`dora top`: order, cells and layout of its tables."""

from __future__ import annotations

from typing import get_args

import pytest

from dora_cli.monitor import (
    EDGE_COLUMNS,
    NODE_COLUMNS,
    EdgeRow,
    Page,
    SortKey,
    Tables,
    View,
    edge_json,
    fitting,
    tables,
)
from dora_config.protocol.snapshot import (
    EdgeRates,
    EdgeSummary,
    MachineSummary,
    NodeSummary,
    Snapshot,
)


def node(name: str, **fields: object) -> NodeSummary:
    facts = {"node": name, "dataflow": "d", "status": "Running", "daemon": "robot", **fields}
    return NodeSummary.model_validate(facts)


def edge(source: str, target: str, **fields: object) -> EdgeSummary:
    facts = {
        "dataflow": "d",
        "source": source,
        "target": target,
        "source_machine": "robot",
        "target_machine": "robot",
        "policy": "drop_oldest",
        **fields,
    }
    return EdgeSummary.model_validate(facts)


NODES = (
    node("b", cpu_percent=1.0, memory_bytes=2 << 20, queued=3),
    node("a", cpu_percent=2.0, memory_bytes=3 << 20, queued=1, restarts=1),
    node("c"),
)
EDGES = (
    EdgeRow(
        edge("a/out", "b/in", dropped=2, lost=1, queued=4, target_machine="dog"),
        EdgeRates(messages=9.96, bytes=1234.0, drops=0.5, p50=1e-5, p99=0.0123),
    ),
    EdgeRow(edge("b/out", "c/in", queued=9, blocked=True), EdgeRates(messages=20.0, bytes=3.2e6)),
)
FOUND = Tables(machines=2, nodes=NODES, edges=EDGES, problems=())

NODE_TABLE = """
NODE  STATUS   DATAFLOW  MACHINE  PID  CPU%  MEMORY (MB)  RESTARTS  QUEUE  I/O READ  I/O WRITE
a     Running  d         robot    -    2.0   3.0          1         1      -         -
b     Running  d         robot    -    1.0   2.0          0         3      -         -
c     Running  d         robot    -    -     -            0         0      -         -
"""
EDGE_TABLE = """
EDGE           DATAFLOW  MACHINE       MSG/S  BYTES/S  DROPS/S  DROPS  QUEUE        P50    P99
a/out -> b/in  d         robot -> dog  10.0   1.2 kB   0.5      3      4            10 us  12.3 ms
b/out -> c/in  d         robot         20.0   3.2 MB   -        0      9 (blocked)  -      -
"""


def text(lines: list[str]) -> str:
    return "\n".join(lines)


def test_a_wide_page_has_all_columns_of_both_tables() -> None:
    head, *rest = Page().lines(FOUND, width=110, height=40)
    assert head == (
        "2 machines, 3 nodes by name, 2 edges by name"
        "   (n c m r u s b d l: sort, tab: tables, q: quit)"
    )
    assert f"{text(rest)}\n" == NODE_TABLE + EDGE_TABLE


def test_unmatched_messages_have_a_column_once_there_are_any() -> None:
    rows = (EdgeRow(edge("a/out", "b/in", unmatched=7), EdgeRates()), EDGES[1])
    page = Page(view="edges").lines(Tables(2, NODES, rows, ()), width=120, height=40)
    titles, joined, other = (line.split("  ") for line in page[-3:])
    assert "UNMATCHED" in titles
    assert "7" in joined
    assert "0" in other


def test_compressed_edges_show_what_crosses_and_its_share() -> None:
    compressed = edge("a/out", "b/in", raw_bytes=4_000_000, wire_bytes=240_000)
    rows = (EdgeRow(compressed, EdgeRates(wire_bytes=120_000.0)), EDGES[1])
    page = Page(view="edges").lines(Tables(2, NODES, rows, ()), width=120, height=40)
    titles, shown, other = (line.split() for line in page[-3:])
    assert titles[titles.index("SENT/S") :][:2] == ["SENT/S", "RATIO"]
    assert "120.0 kB 0.060" in " ".join(shown)
    assert "DROPS/S" in titles
    assert "0.060" not in other
    assert "SENT/S" not in text(Page().lines(FOUND, width=120, height=40)), "nothing is compressed"


def test_a_narrow_page_keeps_the_important_columns() -> None:
    assert text(Page().lines(FOUND, width=44, height=40)) == (
        "2 machines, 3 nodes by name, 2 edges by name\n"
        "\n"
        "NODE  STATUS   CPU%  MEMORY (MB)  QUEUE\n"
        "a     Running  2.0   3.0          1\n"
        "b     Running  1.0   2.0          3\n"
        "c     Running  -     -            0\n"
        "\n"
        "EDGE           MSG/S  DROPS  QUEUE\n"
        "a/out -> b/in  10.0   3      4\n"
        "b/out -> c/in  20.0   0      9 (blocked)"
    )


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize("height", range(1, 16))
def test_a_page_has_no_more_lines_than_the_terminal(height: int, view: View) -> None:
    for width in range(1, 120, 7):
        lines = Page(view).lines(FOUND, width, height)
        assert len(lines) <= height
        shown = {line.split()[0] for line in lines if line}
        assert ("NODE" in shown) is (view != "edges" and height >= 4)
        smallest = {"all": 9, "nodes": 99, "edges": 4}[view]
        assert ("EDGE" in shown) is (height >= smallest)


def test_rows_without_room_are_counted() -> None:
    assert Page("nodes").lines(FOUND, 52, 5)[2:] == [
        "NODE  STATUS   CPU%  MEMORY (MB)  RESTARTS  QUEUE",
        "a     Running  2.0   3.0          1         1",
        "... 2 more",
    ]


def test_problems_are_above_the_tables() -> None:
    found = Tables(machines=1, nodes=(), edges=(), problems=("p1", "p2\n  more", "p3", "p4"))
    assert Page().lines(found, 80, 20)[1:5] == ["p1", "p2", "p3", "... 1 more problem"]


@pytest.mark.parametrize(
    ("keys", "nodes", "edges"),
    [
        ("n", "abc", "ab"),
        ("c", "abc", "ab"),
        ("m", "abc", "ab"),
        ("r", "abc", "ab"),
        ("u", "bac", "ba"),
        ("s", "abc", "ba"),
        ("b", "abc", "ba"),
        ("d", "abc", "ab"),
        ("us", "bac", "ba"),
        ("ux", "bac", "ba"),
        ("l", "abc", "ab"),
    ],
)
def test_order_by_keys(keys: str, nodes: str, edges: str) -> None:
    page = Page()
    for key in keys:
        page.press(key)
    assert "".join(one.node for one in page.nodes(FOUND)) == nodes
    assert "".join(row.edge.source[0] for row in page.edges(FOUND)) == edges


def test_every_order_of_the_command_line_is_a_key() -> None:
    for sort in get_args(SortKey):
        assert f"by {sort}" in Page(sort=sort).lines(FOUND, 200, 40)[0]


def test_tab_selects_the_tables() -> None:
    page = Page()
    views = []
    for _ in range(4):
        views.append(page.view)
        page.press("\t")
    assert views == ["all", "nodes", "edges", "all"]


def test_a_blocked_node_shows_what_it_waits_for() -> None:
    titles, cells = fitting(NODE_COLUMNS, [node("a", queued=4, blocked_on="b/in")], None)
    assert dict(zip(titles, cells, strict=True))["QUEUE"] == "4 (blocked on b/in)"


@pytest.mark.parametrize(
    ("rates", "shown"),
    [
        (EdgeRates(bytes=999.4), "999 B"),
        (EdgeRates(bytes=999.6), "1.0 kB"),
        (EdgeRates(bytes=2.5e10), "25.0 GB"),
        (EdgeRates(p50=0.0, p99=0.9999), "0 us 1.0 s"),
        (EdgeRates(p50=999.9e-6, p99=61.0), "1.0 ms 61.0 s"),
    ],
)
def test_units(rates: EdgeRates, shown: str) -> None:
    titles, cells = fitting(EDGE_COLUMNS, [EdgeRow(edge("a/o", "b/i"), rates)], None)
    row = dict(zip(titles, cells, strict=True))
    names = ("BYTES/S", "P50", "P99")
    assert " ".join(row[name] for name in names if row[name] != "-") == shown


def test_a_node_filter_keeps_its_edges() -> None:
    now = Snapshot(
        machines=(MachineSummary(daemon="robot"), MachineSummary(daemon="x", connected=False)),
        nodes=NODES,
        edges=tuple(row.edge for row in EDGES),
    )
    found = tables(None, now, {"a"})
    assert found.machines == 1
    assert [one.node for one in found.nodes] == ["a"]
    assert [row.edge.target for row in found.edges] == ["b/in"]
    assert len(tables(None, now, {"c"}).edges) == 1
    operator = now.model_copy(update={"edges": (edge("a/operator/out", "b/in"),)})
    assert len(tables(None, operator, {"a"}).edges) == 1
    assert len(tables(None, now).edges) == 2


def test_an_edge_as_json() -> None:
    assert edge_json(EDGES[0]) == {
        "kind": "edge",
        "source": "a/out",
        "target": "b/in",
        "dataflow": "d",
        "dataflow_name": None,
        "source_machine": "robot",
        "target_machine": "dog",
        "messages_per_second": 9.96,
        "bytes_per_second": 1234.0,
        "drops_per_second": 0.5,
        "sent": 0,
        "received": 0,
        "dropped": 2,
        "lost": 1,
        "unmatched": 0,
        "queue": 4,
        "blocked": False,
        "bytes": 0,
        "raw_bytes": 0,
        "wire_bytes": 0,
        "latency_p50": 1e-5,
        "latency_p99": 0.0123,
    }
