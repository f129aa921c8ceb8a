"""Layered layout of a graph, in columns along the flow of data; pure.

Every box is to the right of its sources, except on edges that close a cycle, which are drawn in
lanes below. An edge over several columns bends around their boxes, unless the graph has too many of
them. Boxes of a column are ordered so that few edges cross.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLUMN_GAP = 110.0
ROW_GAP = 26.0
LANE_GAP = 14.0
_BEND_HEIGHT = 6.0
_SWEEPS = 12
_MAX_BENDS = 20_000
"""Limit of the time for graphs with thousands of nodes."""


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a box, in pixels."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Position:
    """A point, or the upper left corner of a box, in pixels."""

    x: float
    y: float


@dataclass(frozen=True)
class Route:
    """Path of an edge: through `points`, or to the left at the height `lane`."""

    points: tuple[Position, ...] = ()
    lane: float | None = None


@dataclass(frozen=True)
class Layout:
    """Positions of boxes, routes of edges, and the size of the drawing."""

    positions: Mapping[str, Position]
    routes: tuple[Route, ...]
    size: Size


def lay_out(boxes: Mapping[str, Size], edges: Sequence[tuple[str, str]]) -> Layout:
    """Compute the layout; edges are pairs of names of boxes."""
    forward = _without_cycles(list(boxes), edges)
    depth = _depths(list(boxes), [edges[index] for index in forward])
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in boxes:
        columns[depth[name]].append(name)
    sizes = dict(boxes)
    links: list[tuple[str, str]] = []
    bends: dict[int, list[str]] = {}
    room = _MAX_BENDS
    for index in sorted(forward, key=lambda index: depth[edges[index][1]] - depth[edges[index][0]]):
        start, end = edges[index]
        chain = [start]
        between = range(depth[start] + 1, depth[end])
        room -= len(between)
        for column in between if room >= 0 else ():
            # names of boxes contain no space, so a bend is never confused with one
            bend = f" {index} {column}"
            sizes[bend] = Size(0.0, _BEND_HEIGHT)
            columns[column].append(bend)
            chain.append(bend)
        bends[index] = chain[1:]
        if len(bends[index]) == len(between):
            links.extend(zip(chain, [*chain[1:], end], strict=True))
    ordered = _ordered([column for column in columns if column], links)
    return _placed(ordered, sizes, len(edges), bends)


def _placed(
    columns: list[list[str]], sizes: Mapping[str, Size], edges: int, bends: Mapping[int, list[str]]
) -> Layout:
    heights = [
        sum(sizes[name].height for name in column) + ROW_GAP * (len(column) - 1)
        for column in columns
    ]
    height = max(heights, default=0.0)
    positions: dict[str, Position] = {}
    widths: dict[str, float] = {}
    x = 0.0
    for column, used in zip(columns, heights, strict=True):
        y = (height - used) / 2
        width = max(sizes[name].width for name in column)
        for name in column:
            positions[name] = Position(x, y)
            widths[name] = width
            y += sizes[name].height + ROW_GAP
        x += width + COLUMN_GAP
    routes: list[Route] = []
    for index in range(edges):
        if index not in bends:
            height += LANE_GAP if height else 0.0
            routes.append(Route(lane=height))
            continue
        points: list[Position] = []
        for bend in bends[index]:
            at = positions.pop(bend)
            middle = at.y + _BEND_HEIGHT / 2
            points += [Position(at.x, middle), Position(at.x + widths[bend], middle)]
        routes.append(Route(tuple(points)))
    return Layout(positions, tuple(routes), Size(max(0.0, x - COLUMN_GAP), height))


def _without_cycles(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[int]:
    """Return the indices of the edges that are not back edges of a depth-first search."""
    successors: dict[str, list[tuple[int, str]]] = {name: [] for name in names}
    for index, (start, end) in enumerate(edges):
        successors[start].append((index, end))
    on_trail: dict[str, bool] = {}
    kept: list[int] = []
    for root in names:
        if root in on_trail:
            continue
        on_trail[root] = True
        trail = [(root, iter(successors[root]))]
        while trail:
            name, following = trail[-1]
            index, child = next(following, (-1, ""))
            if index < 0:
                on_trail[name] = False
                trail.pop()
                continue
            if not on_trail.get(child, False):
                kept.append(index)
            if child not in on_trail:
                on_trail[child] = True
                trail.append((child, iter(successors[child])))
    return sorted(kept)


def _depths(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return the column of each box: right of its sources, or next to its readers."""
    successors: dict[str, list[str]] = {name: [] for name in names}
    waiting = dict.fromkeys(names, 0)
    for start, end in edges:
        successors[start].append(end)
        waiting[end] += 1
    depth = dict.fromkeys(names, 0)
    ready = [name for name in names if not waiting[name]]
    sources = [name for name in ready if successors[name]]
    while ready:
        name = ready.pop()
        for child in successors[name]:
            depth[child] = max(depth[child], depth[name] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    for name in sources:
        depth[name] = min(depth[child] for child in successors[name]) - 1
    used = {column: place for place, column in enumerate(sorted(set(depth.values())))}
    return {name: used[column] for name, column in depth.items()}


def _ordered(columns: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Sort the boxes of each column by the average position of their neighbours."""
    neighbours: dict[str, list[str]] = {name: [] for column in columns for name in column}
    for start, end in links:
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
