"""Graph of a resolved dataflow as a Mermaid flowchart; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.dataflow.sources import OutputSource


def mermaid_graph(dataflow: ResolvedDataflow) -> str:
    """Return the flowchart: nodes, timers and logs are boxes, inputs are arrows.

    Nodes of a module are in a frame with its name.
    """
    names = _Names()
    lines = ["flowchart LR"]
    lines.extend(_nodes(dataflow.nodes, names))
    virtual: dict[str, str] = {}
    edges: list[str] = []
    types = {
        (node.id, output): declared.rpartition("/")[2]
        for node in dataflow.nodes
        for output, declared in node.output_types.items()
    }
    for node in dataflow.nodes:
        for name, wanted in node.inputs.items():
            source = wanted.source
            if isinstance(source, OutputSource):
                start, label = names.of(source.node), source.output
            else:
                text = str(source)
                start = virtual.setdefault(text, names.of(text))
                label = ""
            edges.append(_edge(start, names.of(node.id), _label(types, source, label, name)))
    lines.extend(f'  {alias}{{{{"{_text(text)}"}}}}' for text, alias in virtual.items())
    return "\n".join([*lines, *edges]) + "\n"


class _Names:
    """Generated names of boxes, since ids may be keywords of Mermaid."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of(self, text: str) -> str:
        return self._names.setdefault(text, f"n{len(self._names)}")


def _nodes(nodes: Iterable[ResolvedNode], names: _Names) -> list[str]:
    lines: list[str] = []
    open_modules: list[str] = []
    for node in nodes:
        modules = node.id.split(".")[:-1]
        shared = 0
        while shared < min(len(modules), len(open_modules)):
            if modules[shared] != open_modules[shared]:
                break
            shared += 1
        lines.extend("  end" for _ in open_modules[shared:])
        for depth in range(shared, len(modules)):
            frame = names.of("frame " + ".".join(modules[: depth + 1]) + f" {node.id}")
            lines.append(f'  subgraph {frame}["{_text(modules[depth])}"]')
        open_modules = modules
        lines.append(f"  {names.of(node.id)}{_box(node)}")
    lines.extend("  end" for _ in open_modules)
    return lines


def _box(node: ResolvedNode) -> str:
    label = _text(node.name or node.id.split(".")[-1])
    if node.operators:
        label += "<br/>" + "<br/>".join(f"({_text(one.id)})" for one in node.operators)
    if node.is_dynamic:
        return f'("{label}<br/>dynamic")'
    if not node.inputs:
        return f'[\\"{label}"\\]'
    if not node.outputs:
        return f'[/"{label}"/]'
    return f'["{label}"]'


def _label(types: Mapping[tuple[str, str], str], source: object, output: str, name: str) -> str:
    parts = [output] if output else []
    if isinstance(source, OutputSource):
        if name.rpartition("/")[2] != output.rpartition("/")[2]:
            parts.append(f"as {name}")
        declared = types.get((source.node, source.output))
        if declared:
            parts.append(f"[{declared}]")
    else:
        parts.append(name)
    return " ".join(parts)


def _edge(start: str, end: str, label: str) -> str:
    return f'  {start} -- "{_text(label)}" --> {end}' if label else f"  {start} --> {end}"


def _text(text: str) -> str:
    """Escape special characters of Mermaid and HTML in a quoted text."""
    escaped = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "#": "#35;", "`": "#96;"}
    return "".join(escaped.get(c, c if c.isprintable() else " ") for c in text)
