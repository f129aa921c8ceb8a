"""Boxes stand in layers from left to right and never on each other; cycles are no trouble."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dora_cli.graph_layout import Graph, graph_of, lay_out
from dora_config import ResolvedDataflow


def _dataflow(edges: list[tuple[int, int]], nodes: int) -> ResolvedDataflow:
    inputs: dict[int, dict[str, object]] = {number: {} for number in range(nodes)}
    for count, (source, target) in enumerate(edges):
        wanted = {"type": "output", "node": f"n{source}", "output": "o"}
        inputs[target][f"i{count}"] = {"source": wanted}
    return ResolvedDataflow.model_validate(
        {
            "nodes": [
                {"id": f"n{n}", "path": "x.py", "inputs": inputs[n], "outputs": ["o"]}
                for n in range(nodes)
            ]
        }
    )


def _left(graph: Graph) -> dict[str, float]:
    return {placed.box.label: placed.x for placed in lay_out(graph).boxes}


def test_a_consumer_stands_right_of_its_farthest_source() -> None:
    x = _left(graph_of(_dataflow([(0, 1), (1, 2), (0, 2)], 3)))
    assert x["n0"] < x["n1"] < x["n2"]


def test_timers_stand_left_of_what_they_wake() -> None:
    timer = {"source": {"type": "timer", "interval_ns": 10**9}}
    dataflow = ResolvedDataflow.model_validate(
        {"nodes": [{"id": "a", "path": "a.py", "inputs": {"tick": timer}}]}
    )
    x = _left(graph_of(dataflow))
    assert x["dora/timer/secs/1"] < x["a"]


@given(st.integers(1, 9).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes),
        st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=25),
    )
))  # fmt: skip
def test_any_graph_is_laid_out_without_overlap(case: tuple[int, list[tuple[int, int]]]) -> None:
    nodes, edges = case
    layout = lay_out(graph_of(_dataflow(edges, nodes)))
    assert len(layout.boxes) == nodes
    assert len(layout.routes) == len(edges)
    for number, one in enumerate(layout.boxes):
        assert 0 <= one.x <= layout.width - one.width
        assert 0 <= one.y <= layout.height - one.height
        for other in layout.boxes[number + 1 :]:
            apart = (
                one.x + one.width <= other.x
                or other.x + other.width <= one.x
                or one.y + one.height <= other.y
                or other.y + other.height <= one.y
            )
            assert apart, (one, other)
