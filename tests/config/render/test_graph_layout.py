"""Where boxes stand: in the direction of the data, none upon another."""

from __future__ import annotations

from hypothesis import given, strategies as st

from dora_config.render.graph_layout import Layout, Size, lay_out

graphs = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=20),
    )
)


def layout_of(count: int, edges: list[tuple[int, int]]) -> tuple[dict[str, Size], Layout]:
    boxes = {f"n{n}": Size(100 + n, 40 + 7 * n) for n in range(count)}
    return boxes, lay_out(boxes, [(f"n{a}", f"n{b}") for a, b in edges])


@given(graphs)
def test_boxes_do_not_overlap_and_lie_on_the_drawing(
    graph: tuple[int, list[tuple[int, int]]],
) -> None:
    boxes, layout = layout_of(*graph)
    assert layout.positions.keys() == boxes.keys()
    for name, at in layout.positions.items():
        size = boxes[name]
        assert 0 <= at.x <= at.x + size.width <= layout.size.width + 1e-6
        assert 0 <= at.y <= at.y + size.height <= layout.size.height + 1e-6
        for other, there in layout.positions.items():
            if other != name:
                beside = at.x + size.width <= there.x or there.x + boxes[other].width <= at.x
                above = at.y + size.height <= there.y or there.y + boxes[other].height <= at.y
                assert beside or above


@given(graphs)
def test_edges_lead_to_the_right_or_run_in_a_lane_below(
    graph: tuple[int, list[tuple[int, int]]],
) -> None:
    count, edges = graph
    boxes, layout = layout_of(count, edges)
    bottom = max(at.y + boxes[name].height for name, at in layout.positions.items())
    for (start, end), route in zip(edges, layout.routes, strict=True):
        if route.lane is not None:
            assert bottom < route.lane <= layout.size.height
            continue
        xs = [layout.positions[f"n{start}"].x, *(point.x for point in route.points)]
        assert xs == sorted(xs)
        assert xs[-1] < layout.positions[f"n{end}"].x


def test_an_edge_over_several_columns_goes_between_the_boxes() -> None:
    boxes, layout = layout_of(3, [(0, 1), (1, 2), (0, 2)])
    middle = layout.positions["n1"]
    for point in layout.routes[2].points:
        assert not middle.y <= point.y <= middle.y + boxes["n1"].height


def test_a_chain_of_thousands_is_drawn_without_bends_for_every_long_edge() -> None:
    count = 3000
    chain = [(n, n + 1) for n in range(count - 1)]
    _, layout = layout_of(count, [*chain, *((n, count - 1) for n in range(count - 2)), (0, 2)])
    assert sum(len(route.points) for route in layout.routes) <= 2 * 20_000
    assert layout.routes[-1].points  # the short ones keep theirs
    assert all(route.lane is None for route in layout.routes)


def test_nothing_to_draw() -> None:
    assert lay_out({}, []).size == Size(0.0, 0.0)
