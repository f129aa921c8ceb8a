"""A dataflow as Mermaid text, and as an HTML page that needs nothing from the network; pure."""

from __future__ import annotations

from html import escape

from dora_cli.graph_layout import BOX_HEIGHT, Graph, Layout, Placed, Route, graph_of, lay_out
from dora_config import ResolvedDataflow, ResolvedNode

_STYLE = """
:root { color-scheme: light dark; --line: #7a8594; --box: #eef3fb; --edge: #3b6fb5; --text: #1c2530;
  --virtual: #f6efe0; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --line: #8a94a3; --box: #223047; --edge: #7fb0f0;
  --text: #e6ebf2; --virtual: #3a3222; --page: #12161c; } }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem; background: var(--page);
  color: var(--text); }
.picture { overflow: auto; border: 1px solid var(--line); border-radius: 8px; }
svg text { font: 13px ui-monospace, monospace; fill: var(--text); }
svg .detail, svg .edge-label { font-size: 11px; opacity: .75; }
.node rect { fill: var(--box); stroke: var(--edge); stroke-width: 1.5; }
.virtual rect { fill: var(--virtual); stroke: var(--line); stroke-dasharray: 4 3; }
.route path { fill: none; stroke: var(--line); stroke-width: 1.5; }
.route:hover path { stroke: var(--edge); stroke-width: 3; }
.route:hover text { opacity: 1; font-weight: bold; }
table { border-collapse: collapse; margin-top: 1.5rem; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td { font-family: ui-monospace, monospace; font-size: 13px; }
"""


def mermaid(dataflow: ResolvedDataflow) -> str:
    """The dataflow as Mermaid text."""
    graph = graph_of(dataflow)
    names = {box.key: f"n{number}" for number, box in enumerate(graph.boxes)}
    lines = ["flowchart LR"]
    for box in graph.boxes:
        left, right = ('["', '"]') if box.node is not None else ('(["', '"])')
        lines.append(f"    {names[box.key]}{left}{_quoted(box.label)}{right}")
    for arrow in graph.arrows:
        label = f'|"{_quoted(arrow.label)}"|'
        lines.append(f"    {names[arrow.source]} -->{label} {names[arrow.target]}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("\n", " ")


def html_page(dataflow: ResolvedDataflow, title: str) -> str:
    """A page with the picture and a table of the nodes."""
    graph = graph_of(dataflow)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f'<div class="picture">{svg(graph, lay_out(graph))}</div>',
            _node_table(dataflow),
            "</body></html>",
            "",
        ]
    )


def svg(graph: Graph, layout: Layout) -> str:
    """The picture alone."""
    size = f"{layout.width:.0f}", f"{layout.height:.0f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {size[0]} {size[1]}" role="img">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" '
        'fill="#7a8594"/></marker></defs>',
    ]
    parts += [_route(route) for route in layout.routes]
    parts += [_box(placed) for placed in layout.boxes]
    return "\n".join([*parts, "</svg>"])


def _box(placed: Placed) -> str:
    middle = placed.x + placed.width / 2
    kind = "virtual" if placed.box.node is None else "node"
    label_y = placed.y + (20 if placed.box.detail else BOX_HEIGHT / 2 + 4)
    text = (
        f'<text x="{middle:.1f}" y="{label_y:.1f}" text-anchor="middle">'
        f"{escape(placed.box.label)}</text>"
    )
    if placed.box.detail:
        text += (
            f'<text class="detail" x="{middle:.1f}" y="{placed.y + 36:.1f}" '
            f'text-anchor="middle">{escape(placed.box.detail)}</text>'
        )
    tip = placed.box.node.description if placed.box.node is not None else None
    return (
        f'<g class="{kind}">{f"<title>{escape(tip)}</title>" if tip else ""}'
        f'<rect x="{placed.x:.1f}" y="{placed.y:.1f}" width="{placed.width:.1f}" '
        f'height="{placed.height:.1f}" rx="7"/>{text}</g>'
    )


def _route(route: Route) -> str:
    (x, y), *rest = route.points
    path = f"M{x:.1f} {y:.1f}"
    here = (x, y)
    for point in rest:
        bend = max(40.0, abs(point[0] - here[0]) / 2)
        path += (
            f"C{here[0] + bend:.1f} {here[1]:.1f} {point[0] - bend:.1f} {point[1]:.1f} "
            f"{point[0]:.1f} {point[1]:.1f}"
        )
        here = point
    after = rest[0]
    label_x, label_y = (x + after[0]) / 2, (y + after[1]) / 2 - 6
    label = escape(route.arrow.label)
    return (
        f'<g class="route"><title>{label}</title><path d="{path}" marker-end="url(#tip)"/>'
        f'<text class="edge-label" x="{label_x:.1f}" y="{label_y:.1f}" '
        f'text-anchor="middle">{label}</text></g>'
    )


def _node_table(dataflow: ResolvedDataflow) -> str:
    rows = "".join(_node_row(node) for node in dataflow.nodes)
    return (
        "<table><thead><tr><th>Node</th><th>Runs</th><th>Inputs</th><th>Outputs</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _node_row(node: ResolvedNode) -> str:
    inputs = "<br>".join(
        escape(f"{name} ← {wanted.source}  (queue {wanted.queue_size}, {wanted.queue_policy})")
        for name, wanted in node.inputs.items()
    )
    runs = " ".join([node.path or node.kind, *node.args])
    outputs = "<br>".join(escape(name) for name in node.outputs)
    cells = [escape(node.id), escape(runs), inputs, outputs]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
