"""Checks of requested changes of nodes and edges, and the resolved dataflow after them; pure."""

from __future__ import annotations

from typing import TypeVar

from dora_config.dataflow.resolved import SINGLE_OPERATOR_ID, ResolvedDataflow, ResolvedNode
from dora_config.dataflow.sources import InputSource, LogSource, OutputSource
from dora_config.ids import RESERVED_NODE_ID
from dora_config.protocol.graph_checks import (
    InvalidChange,
    input_of,
    require_edge,
    require_output,
    require_same_ports,
    source_of,
)
from dora_config.protocol.runner import (
    AddNode,
    ConnectInput,
    DisconnectInput,
    GraphChange,
    RemoveNode,
    ReplaceNode,
)
from dora_config.yaml.suggest import closest

Edge = TypeVar("Edge", ConnectInput, DisconnectInput)


def checked(dataflow: ResolvedDataflow, change: GraphChange) -> GraphChange:
    """Return the change, for a replacement with the inputs of the old node.

    Raises InvalidChange.
    """
    match change:
        case AddNode(node=node):
            if any(other.id == node.id for other in dataflow.nodes):
                raise InvalidChange(
                    f'node "{node.id}" exists already; use `dora node replace` to change it'
                )
            for name, one in node.inputs.items():
                _require_source(dataflow, f"{node.id}/{name}", one.source, own=node)
        case RemoveNode(node=name):
            find(dataflow, name)
            if len(dataflow.nodes) == 1:
                raise InvalidChange(
                    f'node "{name}" is the only node; stop the dataflow with `dora stop` instead'
                )
        case ReplaceNode(node=node):
            return change.model_copy(update={"node": _replacement(dataflow, node)})
        case ConnectInput():
            change = _with_operators(dataflow, change)
            target = find(dataflow, change.target)
            where = f"{change.target}/{change.input}"
            if (present := target.inputs.get(change.input)) is not None:
                raise InvalidChange(
                    f"input `{where}` reads `{present.source}`, and an input has one source; name "
                    "a new input, or disconnect this one first"
                )
            _require_source(dataflow, where, source_of(change))
        case DisconnectInput():
            change = _with_operators(dataflow, change)
            require_edge(find(dataflow, change.target), change)
    return change


def _with_operators(dataflow: ResolvedDataflow, change: Edge) -> Edge:
    """Return the edge with the id of the operator in ports of nodes with a single one."""
    ports = {}
    for end, port in ((change.source, "output"), (change.target, "input")):
        if end == RESERVED_NODE_ID:
            continue
        node = find(dataflow, end)
        name = getattr(change, port)
        if [one.id for one in node.operators] == [SINGLE_OPERATOR_ID] and "/" not in name:
            ports[port] = f"{SINGLE_OPERATOR_ID}/{name}"
    return change.model_copy(update=ports)


def applied(dataflow: ResolvedDataflow, change: GraphChange) -> ResolvedDataflow:
    """Return the dataflow after a checked change; a removed node's readers are unchanged."""
    nodes = {node.id: node for node in dataflow.nodes}
    match change:
        case AddNode(node=node) | ReplaceNode(node=node):
            nodes[node.id] = node
        case RemoveNode(node=name):
            del nodes[name]
        case ConnectInput():
            target = nodes[change.target]
            inputs = {**target.inputs, change.input: input_of(change)}
            nodes[target.id] = target.model_copy(update={"inputs": inputs})
        case DisconnectInput():
            target = nodes[change.target]
            inputs = {key: one for key, one in target.inputs.items() if key != change.input}
            nodes[target.id] = target.model_copy(update={"inputs": inputs})
    return dataflow.model_copy(update={"nodes": tuple(nodes.values())})


def readers_of(dataflow: ResolvedDataflow, node: str) -> list[DisconnectInput]:
    """Return the requests that disconnect all readers of a node."""
    return [
        DisconnectInput(source=node, output=source.output, target=consumer, input=name)
        for source, consumer, name in dataflow.edges()
        if source.node == node and consumer != node
    ]


def find(dataflow: ResolvedDataflow, name: str) -> ResolvedNode:
    """Return a node. Raises InvalidChange."""
    for node in dataflow.nodes:
        if node.id == name:
            return node
    known = [node.id for node in dataflow.nodes]
    listed = ", ".join(sorted(known))
    raise InvalidChange(
        f'the dataflow has no node "{name}"{closest(name, known)}; its nodes: {listed}'
    )


def _replacement(dataflow: ResolvedDataflow, node: ResolvedNode) -> ResolvedNode:
    """Return the new node with the queues and the machine of the old one. Raises InvalidChange."""
    old = find(dataflow, node.id)
    require_same_ports(old, node, (one.output for one in readers_of(dataflow, node.id)))
    if not node.deploy.is_empty:
        same = node.deploy.machine == old.deploy.machine and node.deploy.labels == old.deploy.labels
        if not same:
            raise InvalidChange(
                f'node "{node.id}" stays on its machine; to move it, remove it and add it again'
            )
    deploy = old.deploy if node.deploy.is_empty else node.deploy
    return node.model_copy(update={"inputs": old.inputs, "deploy": deploy})


def _require_source(
    dataflow: ResolvedDataflow, where: str, source: InputSource, own: ResolvedNode | None = None
) -> None:
    if not isinstance(source, OutputSource):
        if isinstance(source, LogSource) and source.node is not None:
            _find_source(dataflow, source.node, own)
        return
    require_output(_find_source(dataflow, source.node, own), source, where)


def _find_source(dataflow: ResolvedDataflow, name: str, own: ResolvedNode | None) -> ResolvedNode:
    """Return a node, or ``own``, which is being added. Raises InvalidChange."""
    return own if own is not None and own.id == name else find(dataflow, name)
