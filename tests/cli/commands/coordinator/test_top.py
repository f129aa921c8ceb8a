"""`dora top`: order and cells of rows."""

from __future__ import annotations

import pytest

from dora_cli.commands.coordinator.top import COLUMNS, as_cells, ordered, page
from dora_config.protocol.control import NodeSummary


def node(name: str, **fields: object) -> NodeSummary:
    facts = {"node": name, "dataflow": "d", "status": "Running", "daemon": "robot", **fields}
    return NodeSummary.model_validate(facts)


NODES = [
    node("b", cpu_percent=1.0, memory_bytes=2 << 20, queued=3),
    node("a", cpu_percent=2.0, memory_bytes=3 << 20, queued=1),
    node("c"),
]


@pytest.mark.parametrize(("key", "order"), [("n", "abc"), ("c", "abc"), ("m", "abc"), ("u", "bac")])
def test_order_by_key(key: str, order: str) -> None:
    assert "".join(one.node for one in ordered(NODES, key)) == order


def test_unknown_values_are_dashes() -> None:
    cells = dict(zip(COLUMNS, as_cells(NODES[2]), strict=True))
    assert (cells["PID"], cells["CPU%"], cells["MEMORY (MB)"]) == ("-", "-", "-")


def test_a_blocked_node_shows_what_it_waits_for() -> None:
    cells = dict(zip(COLUMNS, as_cells(node("a", queued=4, blocked_on="b/in")), strict=True))
    assert cells["QUEUE"] == "4 (blocked on b/in)"


def test_the_page_has_a_title_columns_and_a_row_per_node() -> None:
    title, empty, columns, *rows = page(NODES, "u")
    assert title.startswith("3 nodes, sorted by queue ")
    assert (empty, columns.split()[0]) == ("", "NODE")
    assert [row.split()[0] for row in rows] == ["b", "a", "c"]
