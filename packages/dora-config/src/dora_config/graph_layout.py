"""Where the boxes of a graph are drawn: in columns along the flow of data; pure.

Every box stands right of what it reads, except on edges that close a cycle; within a column,
boxes are ordered so that few edges cross.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLUMN_GAP = 110.0
ROW_GAP = 26.0
_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Size:
    """Of a box, in pixels."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Position:
    """The upper left corner of a box, in pixels."""

    x: float
    y: float


@dataclass(frozen=True)
class Layout:
    """Where each box stands, and the size of the whole drawing."""

    positions: Mapping[str, Position]
    size: Size


def lay_out(boxes: Mapping[str, Size], edges: Sequence[tuple[str, str]]) -> Layout:
    """Places the boxes; edges are (from, to) with names of boxes."""
    forward = _without_cycles(list(boxes), edges)
    columns = _ordered(_columns(list(boxes), forward), forward)
    heights = [
        sum(boxes[name].height for name in column) + ROW_GAP * (len(column) - 1)
        for column in columns
    ]
    height = max(heights, default=0.0)
    positions: dict[str, Position] = {}
    x = 0.0
    for column, used in zip(columns, heights, strict=True):
        y = (height - used) / 2
        width = max(boxes[name].width for name in column)
        for name in column:
            positions[name] = Position(x, y)
            y += boxes[name].height + ROW_GAP
        x += width + COLUMN_GAP
    return Layout(positions, Size(max(0.0, x - COLUMN_GAP), height))


def _without_cycles(
    names: Sequence[str], edges: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The edges without those that lead back to where a walk came from."""
    successors: dict[str, list[str]] = {name: [] for name in names}
    for start, end in edges:
        if start != end and end in successors and start in successors:
            successors[start].append(end)
    state: dict[str, int] = {}
    kept: list[tuple[str, str]] = []
    for root in names:
        if root in state:
            continue
        state[root] = 1
        trail = [(root, iter(successors[root]))]
        while trail:
            name, following = trail[-1]
            child = next(following, None)
            if child is None:
                state[name] = 2
                trail.pop()
                continue
            if state.get(child) != 1:
                kept.append((name, child))
            if child not in state:
                state[child] = 1
                trail.append((child, iter(successors[child])))
    return kept


def _columns(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Each box one column right of the rightmost box it reads; sources beside their readers."""
    successors: dict[str, list[str]] = {name: [] for name in names}
    waiting = dict.fromkeys(names, 0)
    for start, end in edges:
        successors[start].append(end)
        waiting[end] += 1
    depth = dict.fromkeys(names, 0)
    ready = [name for name in names if not waiting[name]]
    sources = set(ready)
    while ready:
        name = ready.pop()
        for child in successors[name]:
            depth[child] = max(depth[child], depth[name] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    for name in sources:
        if successors[name]:
            depth[name] = min(depth[child] for child in successors[name]) - 1
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in names:
        columns[depth[name]].append(name)
    return [column for column in columns if column]


def _ordered(columns: list[list[str]], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The columns with each box near the average place of its neighbours."""
    neighbours: dict[str, list[str]] = {name: [] for column in columns for name in column}
    for start, end in edges:
        neighbours[start].append(end)
        neighbours[end].append(start)
    place = {
        name: index - len(column) / 2 for column in columns for index, name in enumerate(column)
    }
    for sweep in range(_SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = {
                name: sum(place[other] for other in neighbours[name]) / len(neighbours[name])
                if neighbours[name]
                else place[name]
                for name in column
            }
            column.sort(key=wanted.__getitem__)
            for index, name in enumerate(column):
                place[name] = index - len(column) / 2
    return columns
