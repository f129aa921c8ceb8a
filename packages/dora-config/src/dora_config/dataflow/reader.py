"""Read the nodes of one document into models, and collect all problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dora_config.dataflow import descriptor, node_kinds
from dora_config.dataflow.modules import SourceNode
from dora_config.dataflow.node_kinds import Block
from dora_config.dataflow.node_shape import NODE_HINTS, ROOT_HINTS, node_problems
from dora_config.errors import Problem
from dora_config.plugins import PluginError
from dora_config.yaml.document import Document, Place
from dora_config.yaml.validation import validate
from dora_config.yaml.wording import describe_place, show


@dataclass
class NodesFile:
    """The valid contents of a dataflow or module file."""

    place: Place
    root: descriptor.Descriptor | descriptor.Module | None = None
    nodes: list[SourceNode] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_nodes_file(
    document: Document, model: type[descriptor.Descriptor] | type[descriptor.Module]
) -> NodesFile:
    """Read a document. The fields of a node are checked together once each of them is valid."""
    place, problems = Place(document), list(document.problems)
    file = NodesFile(place, problems=problems)
    data = document.data
    if not isinstance(data, dict):
        if not problems:
            found = "the file is empty" if data is None else f"found {show(data)}"
            problems.append(place.problem(f"{found}: expected a mapping with a list of `nodes`"))
        return file
    descriptor.Node.model_rebuild()  # before `model`, which then contains it and need not repeat it
    nodes = data.get("nodes")
    nodes = nodes if isinstance(nodes, list) else []
    without = {**data, "nodes": []} if nodes else data
    file.root = validate(model, without, place, problems, ROOT_HINTS.get)
    first: dict[str, Place] = {}
    for index, raw in enumerate(nodes):
        here = place.at("nodes", index)
        node = _read_node(raw, here, problems)
        if node is None:
            continue
        file.nodes.append(SourceNode(node, here))
        problems.extend(node_problems(node, here))
        other = first.setdefault(node.id, here)
        if other is not here:
            line = document.span(other.at("id").path).line
            message = f'duplicate node ID "{node.id}", first on line {line}: ids must be unique'
            problems.append(here.at("id").problem(message))
    return file


def _read_node(raw: Any, place: Place, problems: list[Problem]) -> descriptor.Node | None:
    """Return the node; the field that a plug-in adds is read with the model of the plug-in."""
    known = descriptor.Node.model_fields
    others = [key for key in raw if key not in known] if isinstance(raw, dict) else []
    name = next((key for key in others if node_kinds.is_name(key)), None)
    if name is None:
        return validate(descriptor.Node, raw, place, problems, NODE_HINTS.get)
    rest = {key: value for key, value in raw.items() if key != name}
    node = validate(descriptor.Node, rest, place, problems, NODE_HINTS.get)
    if raw[name] is None:
        return node
    try:
        kind = node_kinds.load(name)
    except PluginError as error:
        message, _, remedy = str(error).partition("\n  ")
        message = f"{describe_place(place)}: {message}"
        problems.append(place.at(name).problem(message, remedy or None, at_key=True))
        return None
    value = validate(kind.model, raw[name], place.at(name), problems)
    return None if node is None or value is None else node.with_block(Block(name, kind, value))
