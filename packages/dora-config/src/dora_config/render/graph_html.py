"""Graph of a resolved dataflow as a self-contained HTML page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import pairwise

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource
from dora_config.render.graph_layout import Layout, Position, Route, Size, lay_out

_HEADER = 44.0
_ROW = 20.0
_PADDING = 10.0
_CHARACTER = 7.0
_MIN_WIDTH = 130.0
_MAX_CHARACTERS = 34
_PILL_HEIGHT = 28.0
_MARGIN = 40.0
_COLOURS = 8
_UNITS = {"secs": "s", "millis": "ms", "micros": "µs", "nanos": "ns"}


@dataclass(frozen=True)
class _Edge:
    start: str
    output: str
    end: str
    input: str
    wanted: ResolvedInput
    data_type: str | None


def graph_page(dataflow: ResolvedDataflow, title: str) -> str:
    """Return the page; `title` is usually the name of the file."""
    edges = _edges(dataflow)
    pills = dict.fromkeys(edge.start for edge in edges if edge.start.startswith("dora/"))
    boxes = {node.id: _node_size(node) for node in dataflow.nodes}
    boxes.update({pill: _pill_size(pill) for pill in pills})
    layout = lay_out(boxes, [(edge.start, edge.end) for edge in edges])
    nodes = {node.id: node for node in dataflow.nodes}
    machines = _machine_colours(dataflow)
    parts = [
        _draw_edge(edge, route, nodes, boxes, layout)
        for edge, route in zip(edges, layout.routes, strict=True)
    ]
    for node in dataflow.nodes:
        colour = machines.get(_placement_text(node), 0)
        parts.append(_draw_node(node, boxes[node.id], layout.positions[node.id], colour))
    parts.extend(_draw_pill(pill, boxes[pill], layout.positions[pill]) for pill in pills)
    width, height = layout.size.width + 2 * _MARGIN, layout.size.height + 2 * _MARGIN
    page = {
        "@TITLE@": escape(title),
        "@SUMMARY@": escape(_summary(dataflow, edges)),
        "@WIDTH@": f"{width:.0f}",
        "@HEIGHT@": f"{height:.0f}",
        "@MARGIN@": f"{_MARGIN:.0f}",
        "@DRAWING@": "\n".join(parts),
        "@DETAILS@": _details_json(dataflow),
    }
    text = (files(__package__) / "graph_page.html").read_text(encoding="utf-8")
    for mark, value in page.items():
        text = text.replace(mark, value)
    return text


def _edges(dataflow: ResolvedDataflow) -> list[_Edge]:
    types = {
        (node.id, output): declared
        for node in dataflow.nodes
        for output, declared in node.output_types.items()
    }
    ids = {node.id for node in dataflow.nodes}
    edges: list[_Edge] = []
    for node in dataflow.nodes:
        for name, wanted in node.inputs.items():
            source = wanted.source
            if not isinstance(source, OutputSource):
                edges.append(_Edge(str(source), "", node.id, name, wanted, None))
            elif source.node in ids:
                declared = types.get((source.node, source.output), wanted.data_type)
                edges.append(_Edge(source.node, source.output, node.id, name, wanted, declared))
    return edges


def _node_size(node: ResolvedNode) -> Size:
    inputs = max((len(_shorten(name)) for name in node.inputs), default=0)
    outputs = max((len(_shorten(name)) for name in node.outputs), default=0)
    longest = max(len(_shorten(node.id)) + 2, len(_subtitle(node)), inputs + outputs + 5)
    rows = max(len(node.inputs), len(node.outputs))
    width = max(_MIN_WIDTH, longest * _CHARACTER + 2 * _PADDING)
    return Size(width, _HEADER + rows * _ROW + (_PADDING if rows else 0))


def _pill_size(text: str) -> Size:
    return Size(len(_pill_text(text)) * _CHARACTER + 3 * _PADDING, _PILL_HEIGHT)


def _pill_text(text: str) -> str:
    """Return the label of a timer or of logs."""
    match text.split("/"):
        case ["dora", "timer", unit, value]:
            return f"every {value} {_UNITS[unit]}"
        case _:
            return _shorten(text.removeprefix("dora/").replace("/", " "))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def _subtitle(node: ResolvedNode) -> str:
    if node.operators:
        text = ", ".join(one.id for one in node.operators)
        return _shorten(f"operators: {text}" if len(node.operators) > 1 else f"operator: {text}")
    return _shorten(node.path or "")


def _placement_text(node: ResolvedNode) -> str:
    deploy = node.deploy
    if deploy.machine is not None:
        return f"machine {deploy.machine}"
    return ", ".join(f"{key}={value}" for key, value in deploy.labels.items())


def _machine_colours(dataflow: ResolvedDataflow) -> dict[str, int]:
    """Return a colour by machine or labels, for nodes that have any."""
    places = dict.fromkeys(_placement_text(node) for node in dataflow.nodes)
    named = [place for place in places if place]
    return {place: 1 + index % _COLOURS for index, place in enumerate(named)}


def _port_y(names: list[str], name: str) -> float:
    return _HEADER + names.index(name) * _ROW + _ROW / 2


def _draw_edge(
    edge: _Edge,
    route: Route,
    nodes: dict[str, ResolvedNode],
    boxes: dict[str, Size],
    layout: Layout,
) -> str:
    at, to = layout.positions[edge.start], layout.positions[edge.end]
    height = boxes[edge.start].height / 2
    producer = nodes.get(edge.start)
    if producer is not None and edge.output in producer.outputs:
        height = _port_y(list(producer.outputs), edge.output)
    start = Position(at.x + boxes[edge.start].width, at.y + height)
    end = Position(to.x, to.y + _port_y(list(nodes[edge.end].inputs), edge.input))
    path = _lane_path(start, end, route.lane) if route.lane else _path([start, *route.points, end])
    kinds = ["edge"]
    if edge.start.startswith("dora/"):
        kinds.append("virtual")
    if edge.wanted.queue_policy == "backpressure":
        kinds.append("backpressure")
    return (
        f'<g class="{" ".join(kinds)}" data-from="{escape(edge.start)}" '
        f'data-to="{escape(edge.end)}"><title>{escape(_edge_text(edge))}</title>'
        f'<path class="hit" d="{path}"/><path class="line" d="{path}"/></g>'
    )


def _path(points: list[Position]) -> str:
    """Return a curve that is horizontal at each point."""
    parts = [f"M{points[0].x:.1f} {points[0].y:.1f}"]
    for one, other in pairwise(points):
        bend = (other.x - one.x) / 2
        parts.append(
            f"C{one.x + bend:.1f} {one.y:.1f} {other.x - bend:.1f} {other.y:.1f} "
            f"{other.x:.1f} {other.y:.1f}"
        )
    return " ".join(parts)


def _lane_path(start: Position, end: Position, lane: float) -> str:
    """Return the curve of an edge that closes a cycle, through its lane."""
    turn = 45.0
    return (
        f"M{start.x:.1f} {start.y:.1f} "
        f"C{start.x + turn:.1f} {start.y:.1f} {start.x + turn:.1f} {lane:.1f} "
        f"{start.x:.1f} {lane:.1f} L{end.x:.1f} {lane:.1f} "
        f"C{end.x - turn:.1f} {lane:.1f} {end.x - turn:.1f} {end.y:.1f} {end.x:.1f} {end.y:.1f}"
    )


def _edge_text(edge: _Edge) -> str:
    source = f"{edge.start}/{edge.output}" if edge.output else edge.start
    lines = [f"{source} → {edge.end}/{edge.input}"]
    if edge.data_type:
        lines.append(edge.data_type)
    lines.append(f"queue: {edge.wanted.queue_size}, {edge.wanted.queue_policy}")
    if edge.wanted.input_timeout is not None:
        lines.append(f"timeout: {edge.wanted.input_timeout:g} s")
    return "\n".join(lines)


def _draw_node(node: ResolvedNode, size: Size, at: Position, colour: int) -> str:
    parts = [
        f'<g class="node {node.kind} place{colour}" data-id="{escape(node.id)}" tabindex="0" '
        f'transform="translate({at.x:.1f} {at.y:.1f})">',
        f"<title>{escape(node.description or node.name or node.id)}</title>",
        f'<rect class="box" width="{size.width:.1f}" height="{size.height:.1f}" rx="8"/>',
        f'<rect class="stripe" width="4" height="{size.height - 16:.1f}" y="8" x="0"/>',
        f'<text class="name" x="{_PADDING}" y="18">{escape(_shorten(node.id))}</text>',
        f'<text class="program" x="{_PADDING}" y="34">{escape(_subtitle(node))}</text>',
    ]
    for index, name in enumerate(node.inputs):
        y = _HEADER + index * _ROW + _ROW / 2
        parts.append(f'<circle class="port" cx="0" cy="{y}" r="3.5"/>')
        parts.append(
            f'<text class="input" x="{_PADDING}" y="{y + 4}">{escape(_shorten(name))}</text>'
        )
    for index, name in enumerate(node.outputs):
        y = _HEADER + index * _ROW + _ROW / 2
        parts.append(f'<circle class="port" cx="{size.width:.1f}" cy="{y}" r="3.5"/>')
        parts.append(
            f'<text class="output" x="{size.width - _PADDING:.1f}" y="{y + 4}">'
            f"{escape(_shorten(name))}</text>"
        )
    return "".join([*parts, "</g>"])


def _draw_pill(text: str, size: Size, at: Position) -> str:
    return (
        f'<g class="pill" data-id="{escape(text)}" transform="translate({at.x:.1f} {at.y:.1f})">'
        f"<title>{escape(text)}</title>"
        f'<rect class="box" width="{size.width:.1f}" height="{size.height:.1f}" rx="14"/>'
        f'<text x="{size.width / 2:.1f}" y="18">{escape(_pill_text(text))}</text></g>'
    )


def _summary(dataflow: ResolvedDataflow, edges: list[_Edge]) -> str:
    nodes, between = len(dataflow.nodes), sum(bool(edge.output) for edge in edges)
    node_word = "node" if nodes == 1 else "nodes"
    edge_word = "connection" if between == 1 else "connections"
    return f"{nodes} {node_word}, {between} {edge_word}"


def _details_json(dataflow: ResolvedDataflow) -> str:
    """Return the contents of the side panel for each node as JSON."""
    details = {node.id: _details(node) for node in dataflow.nodes}
    # `</script>` in a value must not end the script
    return json.dumps(details, ensure_ascii=True).replace("<", "\\u003c")


def _details(node: ResolvedNode) -> list[tuple[str, str]]:
    restart = node.restart
    lines = [
        ("name", node.name),
        ("description", node.description),
        ("kind", node.kind),
        ("path", node.path),
        ("args", " ".join(node.args)),
        ("operators", ", ".join(f"{one.id}: {one.python}" for one in node.operators)),
        ("build", "\n".join(node.build)),
        ("git", node.git.url if node.git is not None else None),
        ("runs on", _placement_text(node)),
        ("restart", restart.policy if restart.policy != "never" else None),
        ("environment", ", ".join(node.env)),
        ("inputs", "\n".join(f"{name} ← {one.source}" for name, one in node.inputs.items())),
        ("outputs", "\n".join(_typed(node, output) for output in node.outputs)),
    ]
    return [(label, value) for label, value in lines if value]


def _typed(node: ResolvedNode, output: str) -> str:
    declared = node.output_types.get(output)
    return f"{output}: {declared}" if declared else output
