"""A dataflow as a graph of boxes and arrows, and where they stand on a page; pure.

Layers from left to right: edges that close a cycle are turned round, a box stands one layer right
of its farthest source, edges that span layers bend around the boxes between, and the order within
a layer follows the neighbours' (a few sweeps of the barycentre rule).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

from dora_config import OutputSource, ResolvedDataflow, ResolvedNode

CHARACTER = 7.4
"""Width of a character of the label, in pixels."""
BOX_HEIGHT, ROW_GAP, LAYER_GAP, MARGIN = 46.0, 26.0, 150.0, 24.0
SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Box:
    """A node, or a virtual source (a timer, the logs): `node` is None then."""

    key: str
    label: str
    detail: str = ""
    node: ResolvedNode | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """One edge: what the producer calls it and, when it differs, what the consumer does."""

    source: str
    target: str
    label: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Boxes in the order of the file, virtual sources first used first."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def graph_of(dataflow: ResolvedDataflow) -> Graph:
    """The boxes and arrows of a dataflow; several inputs from one timer are one arrow each."""
    boxes = {f"node {node.id}": _node_box(node) for node in dataflow.nodes}
    arrows: list[Arrow] = []
    for node in dataflow.nodes:
        for input_id, wanted in node.inputs.items():
            source = wanted.source
            if isinstance(source, OutputSource):
                key, label = f"node {source.node}", source.output
                boxes.setdefault(key, Box(key, source.node, "not in this file"))
            else:
                key, label = f"source {source}", ""
                boxes.setdefault(key, Box(key, str(source)))
            same = label == input_id
            text = label if same else f"{label} → {input_id}" if label else input_id
            arrows.append(Arrow(key, f"node {node.id}", text))
    return Graph(tuple(boxes.values()), tuple(arrows))


def _node_box(node: ResolvedNode) -> Box:
    if node.operators:
        detail = "operators: " + ", ".join(operator.id for operator in node.operators)
    else:
        detail = node.path or node.kind
    return Box(f"node {node.id}", node.name or node.id, detail, node)


@dataclass(frozen=True, slots=True)
class Placed:
    """A box and its upper left corner, in pixels."""

    box: Box
    x: float
    y: float
    width: float
    height: float = BOX_HEIGHT


@dataclass(frozen=True, slots=True)
class Route:
    """The points an arrow passes, from the right edge of one box to the left edge of another."""

    arrow: Arrow
    points: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class Layout:
    """Everything placed; `width` and `height` of the page in pixels."""

    boxes: list[Placed] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def lay_out(graph: Graph) -> Layout:
    """Place every box and route every arrow."""
    layer_of = _layers(graph)
    chains = _chains(graph, layer_of)
    columns = _columns(graph, layer_of, chains)
    widths = {box.key: _width(box) for box in graph.boxes}
    layout = Layout()
    centres: dict[str, float] = {}
    lefts: dict[str, float] = {}
    tallest = max((len(column) for column in columns), default=0)
    x = MARGIN
    for column in columns:
        free = (tallest - len(column)) * (BOX_HEIGHT + ROW_GAP) / 2
        column_width = max((widths.get(key, 0.0) for key in column), default=0.0)
        for row, key in enumerate(column):
            y = MARGIN + free + row * (BOX_HEIGHT + ROW_GAP)
            centres[key] = y + BOX_HEIGHT / 2
            lefts[key] = x + (column_width - widths.get(key, column_width)) / 2
        x += column_width + LAYER_GAP
    for box in graph.boxes:
        y = centres[box.key] - BOX_HEIGHT / 2
        layout.boxes.append(Placed(box, lefts[box.key], y, widths[box.key]))
    layout.width = max(x - LAYER_GAP, MARGIN) + MARGIN
    layout.height = 2 * MARGIN + max(tallest, 1) * (BOX_HEIGHT + ROW_GAP)
    layout.routes = [
        Route(arrow, _points(arrow, chain, lefts, centres, widths))
        for arrow, chain in zip(graph.arrows, chains, strict=True)
    ]
    return layout


def _width(box: Box) -> float:
    return max(90.0, CHARACTER * max(len(box.label), 0.85 * len(box.detail)) + 28)


def _layers(graph: Graph) -> dict[str, int]:
    """Longest path from a source, with the edges that close a cycle left out."""
    outgoing: dict[str, list[str]] = defaultdict(list)
    for arrow in graph.arrows:
        outgoing[arrow.source].append(arrow.target)
    order: list[str] = []
    state: dict[str, int] = {}
    forward: set[tuple[str, str]] = set()
    for start in [box.key for box in graph.boxes if box.node is None] + [
        box.key for box in graph.boxes
    ]:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(outgoing[start]))]
        while stack:
            here, targets = stack[-1]
            for target in targets:
                if state.get(target) != 1:  # 1: on the way here, so the edge closes a cycle
                    forward.add((here, target))
                if target not in state:
                    state[target] = 1
                    stack.append((target, iter(outgoing[target])))
                    break
            else:
                state[here] = 2
                order.append(here)
                stack.pop()
    layer = dict.fromkeys(order, 0)
    for key in reversed(order):
        for target in outgoing[key]:
            if (key, target) in forward:
                layer[target] = max(layer[target], layer[key] + 1)
    return layer


def _chains(graph: Graph, layer_of: dict[str, int]) -> list[list[str]]:
    """For each arrow the keys of its bends, one in every layer between its two ends."""
    chains = []
    for number, arrow in enumerate(graph.arrows):
        first, last = sorted((layer_of[arrow.source], layer_of[arrow.target]))
        chain = [f"bend {number} {layer}" for layer in range(first + 1, last)]
        for key in chain:
            layer_of[key] = int(key.rpartition(" ")[2])
        backwards = layer_of[arrow.source] > layer_of[arrow.target]
        chains.append(chain[::-1] if backwards else chain)
    return chains


def _columns(graph: Graph, layer_of: dict[str, int], chains: list[list[str]]) -> list[list[str]]:
    """The keys of every layer, from top to bottom."""
    columns: list[list[str]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for key in [box.key for box in graph.boxes] + [key for chain in chains for key in chain]:
        columns[layer_of[key]].append(key)
    neighbours: dict[str, list[str]] = defaultdict(list)
    for arrow, chain in zip(graph.arrows, chains, strict=True):
        path = [arrow.source, *chain, arrow.target]
        for left, right in itertools.pairwise(path):
            neighbours[left].append(right)
            neighbours[right].append(left)
    for sweep in range(SWEEPS):
        rightwards = sweep % 2 == 0
        side = {-1, 0, 1} if sweep == SWEEPS - 1 else {-1} if rightwards else {1}
        for index in range(len(columns)) if rightwards else reversed(range(len(columns))):
            rows = {key: row / len(column) for column in columns for row, key in enumerate(column)}
            weights = {
                key: _mean(
                    [rows[near] for near in neighbours[key] if layer_of[near] - index in side],
                    default=rows[key],
                )
                for key in columns[index]
            }
            columns[index].sort(key=weights.__getitem__)
    return columns


def _mean(values: list[float], *, default: float) -> float:
    return sum(values) / len(values) if values else default


def _points(
    arrow: Arrow,
    chain: list[str],
    lefts: dict[str, float],
    centres: dict[str, float],
    widths: dict[str, float],
) -> tuple[tuple[float, float], ...]:
    start = (lefts[arrow.source] + widths[arrow.source], centres[arrow.source])
    end = (lefts[arrow.target], centres[arrow.target])
    return (start, *((lefts[key], centres[key]) for key in chain), end)
