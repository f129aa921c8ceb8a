"""Requests that change nodes and edges: checked, then sent to daemons step by step."""

from __future__ import annotations

from typing import Final, TypeVar

import anyio

from dora_config.dataflow.resolved import SINGLE_OPERATOR_ID, ResolvedDataflow, ResolvedNode
from dora_config.dataflow.sources import InputSource, LogSource, OutputSource
from dora_config.ids import RESERVED_NODE_ID
from dora_config.protocol import runner as protocol
from dora_config.protocol.calls import ChangePart
from dora_config.protocol.control import ChangeGraph, GraphChanged
from dora_config.protocol.graph_checks import (
    InvalidChange,
    input_of,
    require_edge,
    require_output,
    require_same_ports,
    source_of,
)
from dora_config.yaml.suggest import closest
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.placement import place_one
from dora_coordinator.links.edges import remote_edges
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.daemon_calls import CallProblems
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.events import EndedPartChanged, PartAdded
from dora_coordinator.state.records import PartState, Phase

Changed = TypeVar("Changed", bound=protocol.EdgeChange)


def checked(dataflow: ResolvedDataflow, change: protocol.GraphChange) -> protocol.GraphChange:
    """Return the change, for a replacement with the inputs of the old node.

    Raises InvalidChange.
    """
    match change:
        case protocol.AddNode(node=node):
            if any(other.id == node.id for other in dataflow.nodes):
                raise InvalidChange(
                    f'node "{node.id}" exists already; use `dora node replace` to change it'
                )
            for name, one in node.inputs.items():
                _require_source(dataflow, f"{node.id}/{name}", one.source, own=node)
        case protocol.RemoveNode(node=name):
            find(dataflow, name)
            if len(dataflow.nodes) == 1:
                raise InvalidChange(
                    f'node "{name}" is the only node; stop the dataflow with `dora stop` instead'
                )
        case protocol.ReplaceNode(node=node):
            return change.model_copy(update={"node": _replacement(dataflow, node)})
        case protocol.ConnectInput():
            change = _with_operators(dataflow, change)
            target = find(dataflow, change.target)
            where = f"{change.target}/{change.input}"
            if (present := target.inputs.get(change.input)) is not None:
                raise InvalidChange(
                    f"input `{where}` reads `{present.source}`, and an input has one source; name "
                    "a new input, or disconnect this one first"
                )
            _require_source(dataflow, where, source_of(change))
        case protocol.DisconnectInput():
            change = _with_operators(dataflow, change)
            require_edge(find(dataflow, change.target), change)
    return change


def _with_operators(dataflow: ResolvedDataflow, change: Changed) -> Changed:
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


def applied(dataflow: ResolvedDataflow, change: protocol.GraphChange) -> ResolvedDataflow:
    """Return the dataflow after a checked change; a removed node's readers are unchanged."""
    nodes = {node.id: node for node in dataflow.nodes}
    match change:
        case protocol.AddNode(node=node) | protocol.ReplaceNode(node=node):
            nodes[node.id] = node
        case protocol.RemoveNode(node=name):
            del nodes[name]
        case protocol.ConnectInput():
            target = nodes[change.target]
            inputs = {**target.inputs, change.input: input_of(change)}
            nodes[target.id] = target.model_copy(update={"inputs": inputs})
        case protocol.DisconnectInput():
            target = nodes[change.target]
            inputs = {key: one for key, one in target.inputs.items() if key != change.input}
            nodes[target.id] = target.model_copy(update={"inputs": inputs})
    return dataflow.model_copy(update={"nodes": tuple(nodes.values())})


def readers_of(dataflow: ResolvedDataflow, node: str) -> list[protocol.DisconnectInput]:
    """Return the requests that disconnect all readers of a node."""
    return [
        protocol.DisconnectInput(source=node, output=source.output, target=consumer, input=name)
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


LOST: Final = CallProblems(
    lost='the connection to daemon "{0}" was lost; `dora node list` shows whether the change took '
    "place",
    failed="{1}",
)


class GraphChanges:
    """One change of a dataflow at a time."""

    def __init__(self) -> None:
        self._changing: set[str] = set()
        """Ids of dataflows."""

    async def change(self, request: ChangeGraph, cluster: QueryContext) -> GraphChanged:
        """Carry out a change, which continues without its client.

        Raises :class:`RequestRefused`.
        """
        dataflow = cluster.registry.find(request.dataflow, archived=False)
        if dataflow.phase not in (Phase.RUNNING, Phase.RECOVERING):
            text = f"dataflow {dataflow.label} does not run (it is {dataflow.status()[0]})"
            raise RequestRefused("conflict", text)
        if dataflow.id in self._changing:
            text = f"another change of dataflow {dataflow.label} is in progress; try again"
            raise RequestRefused("conflict", text)
        try:
            change = checked(dataflow.spec.resolved, request.change)
        except InvalidChange as problem:
            raise RequestRefused("failed", str(problem)) from None
        daemon = _daemon_of(cluster, dataflow, change)
        self._changing.add(dataflow.id)
        try:
            with anyio.CancelScope(shield=True):
                if isinstance(change, protocol.AddNode) and daemon not in dataflow.parts:
                    await _add_part(cluster, dataflow, daemon, change)
                else:
                    await _change_parts(cluster, dataflow, daemon, change)
        finally:
            self._changing.discard(dataflow.id)
        return GraphChanged(uuid=dataflow.id, daemon=daemon)


def _daemon_of(cluster: QueryContext, dataflow: Dataflow, change: protocol.GraphChange) -> str:
    match change:
        case protocol.AddNode(node=node):
            return place_one(node, cluster.membership.connected())
        case protocol.RemoveNode(node=name):
            pass
        case protocol.ReplaceNode(node=node):
            name = node.id
        case _:
            name = change.target
    daemon = dataflow.parts.by_node().get(name)
    if daemon is None:
        raise RequestRefused("failed", f'the daemon of node "{name}" has not reported it yet')
    return daemon


async def _add_part(
    cluster: QueryContext, dataflow: Dataflow, daemon: str, change: protocol.AddNode
) -> None:
    """Start a node on a further daemon, and wait until it runs."""
    _require_connected(cluster, daemon)
    node = protocol.CurrentNode(node=change.node, place=change.place, code=change.code)
    await cluster.store(dataflow.id, PartAdded(daemon, node))
    await _until_runs(cluster, dataflow.id, daemon)


async def _change_parts(
    cluster: QueryContext, dataflow: Dataflow, daemon: str, change: protocol.GraphChange
) -> None:
    """Change the part of a node, and then the parts of its readers."""
    readers: list[protocol.DisconnectInput] = []
    if isinstance(change, protocol.RemoveNode):
        by_node = dataflow.parts.by_node()
        readers = [
            one
            for one in readers_of(dataflow.spec.resolved, change.node)
            if by_node.get(one.target, daemon) != daemon
            and not dataflow.parts[by_node[one.target]].ended
        ]  # the runner of the node sees its own
    await _change_part(cluster, dataflow, change)
    for step in readers:
        present = cluster.registry.get(dataflow.id)
        if present is None:
            return
        await _change_part(cluster, present, step, partial="changed in part: ")


async def _change_part(
    cluster: QueryContext, dataflow: Dataflow, change: protocol.GraphChange, partial: str = ""
) -> None:
    daemon = _daemon_of(cluster, dataflow, change)
    part = dataflow.parts[daemon]
    if part.ended:
        _require_connected(cluster, daemon, partial)
        await change_ended_part(cluster, dataflow, _without_runner(dataflow, daemon, change))
        return
    if part.state is not PartState.RUNNING:
        text = f'the nodes of {dataflow.label} on daemon "{daemon}" are being started'
        raise RequestRefused("conflict", partial + text)
    _require_connected(cluster, daemon, partial)
    by_node = dataflow.parts.by_node()
    if isinstance(change, protocol.AddNode):
        by_node[change.node.id] = daemon
    edges = remote_edges(applied(dataflow.spec.resolved, change), by_node).get(daemon, ())
    links = dataflow.parts.links_of(part, cluster.membership, edges)
    request = ChangePart(dataflow_id=dataflow.id, attempt=part.attempt, links=links, change=change)
    replies = await cluster.calls.gather(
        [daemon], request, protocol.Done, seconds=None, problems=LOST
    )
    for problem in replies.problems.values():
        raise RequestRefused("failed", problem)
    await cluster.store(dataflow.id, None)  # what the daemon has sent before its reply


def _without_runner(
    dataflow: Dataflow, daemon: str, change: protocol.GraphChange
) -> EndedPartChanged:
    """Return the result of a checked change for a part that has ended."""
    match change:
        case protocol.RemoveNode(node=name):
            return EndedPartChanged(daemon, removed=(name,))
        case protocol.AddNode(node=node) | protocol.ReplaceNode(node=node):
            current = protocol.CurrentNode(node=node, place=change.place, code=change.code)
            return EndedPartChanged(daemon, (current,), starts=(node.id,))
        case protocol.ConnectInput(target=name) | protocol.DisconnectInput(target=name):
            node = applied(dataflow.spec.resolved, change).node(name)
            return EndedPartChanged(daemon, (protocol.CurrentNode(node=node),))


async def change_ended_part(
    cluster: QueryContext, dataflow: Dataflow, change: EndedPartChanged
) -> None:
    """Change nodes without a runner; wait until those that are to start run.

    Raises :class:`RequestRefused`.
    """
    await cluster.store(dataflow.id, change)
    if change.starts:
        await _until_runs(cluster, dataflow.id, change.daemon)


async def _until_runs(cluster: QueryContext, dataflow_id: str, daemon: str) -> None:
    """Wait until a part runs or has ended; raises RequestRefused if it was not started."""
    while True:
        present = cluster.registry.get(dataflow_id)
        if present is None or present.has_ended:
            raise RequestRefused("failed", "the dataflow has ended")
        reason = present.not_added.pop(daemon, None)
        part = present.parts.get(daemon)
        if part is None or reason is not None:
            raise RequestRefused("failed", reason or "the node was not started")
        if part.state is PartState.RUNNING or part.ended:
            return
        if present.phase is Phase.STOPPING:
            raise RequestRefused("failed", "the dataflow is being stopped")
        await cluster.changed()


def _require_connected(cluster: QueryContext, daemon: str, partial: str = "") -> None:
    if not cluster.membership.is_connected(daemon):
        raise RequestRefused("failed", f'{partial}no connection to daemon "{daemon}"')
