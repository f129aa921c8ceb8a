"""Requests that change nodes and edges: checked, then sent to daemons step by step; pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeVar

from dora_config.dataflow.placement import ConnectedDaemon, choose_daemon
from dora_config.dataflow.resolved import SINGLE_OPERATOR_ID, ResolvedDataflow, ResolvedNode
from dora_config.dataflow.sources import InputSource, LogSource, OutputSource
from dora_config.ids import RESERVED_NODE_ID
from dora_config.protocol import runner as protocol
from dora_config.protocol.calls import ChangePart, PartResult
from dora_config.protocol.control import ChangeGraph, GraphChanged
from dora_config.protocol.envelope import clean_lines
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
from dora_coordinator.dataflow.events import PartAdded
from dora_coordinator.dataflow.registry import DataflowRegistry, RequestRefused
from dora_coordinator.links.edges import remote_edges
from dora_coordinator.state.commands import AnswerClient, Command, FailClient, SendToDaemon
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership
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


@dataclass(slots=True)
class _Operation:
    """A change in progress; ``daemon`` answers next, or starts its first part."""

    requested: ClientRequested
    dataflow_id: str
    daemon: str
    answer_daemon: str
    steps: deque[protocol.GraphChange] = field(default_factory=deque)
    """Further changes."""
    starts_part: bool = False
    client_waits: bool = True


class GraphChanges:
    """One change of a dataflow at a time."""

    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership
        self._operations: dict[str, _Operation] = {}
        """By id of the dataflow."""

    def open(
        self, requested: ClientRequested, request: ChangeGraph, dataflow: Dataflow, now: float
    ) -> list[Command]:
        """Begin a change; raises :class:`RequestRefused` and placement errors."""
        if dataflow.phase not in (Phase.RUNNING, Phase.RECOVERING):
            text = f"dataflow {dataflow.label} does not run (it is {dataflow.status()[0]})"
            raise RequestRefused("conflict", text)
        if dataflow.id in self._operations:
            text = f"another change of dataflow {dataflow.label} is in progress; try again"
            raise RequestRefused("conflict", text)
        try:
            change = checked(dataflow.spec.resolved, request.change)
        except InvalidChange as problem:
            raise RequestRefused("failed", str(problem)) from None
        daemon = self._daemon_of(dataflow, change)
        operation = _Operation(requested, dataflow.id, daemon, daemon)
        if isinstance(change, protocol.AddNode) and daemon not in dataflow.parts:
            self._require_connected(daemon)
            operation.starts_part = True
            self._operations[dataflow.id] = operation
            node = protocol.CurrentNode(node=change.node, place=change.place, code=change.code)
            return self._registry.apply(dataflow, PartAdded(daemon, node), now)
        operation.steps.append(change)
        if isinstance(change, protocol.RemoveNode):
            operation.steps.extend(self._readers_elsewhere(dataflow, change.node, daemon))
        commands = self._next_step(operation, dataflow)
        self._operations[dataflow.id] = operation
        return commands

    def _daemon_of(self, dataflow: Dataflow, change: protocol.GraphChange) -> str:
        if isinstance(change, protocol.AddNode):
            return self._place(change.node)
        match change:
            case protocol.RemoveNode(node=node):
                name = node
            case protocol.ReplaceNode():
                name = change.node.id
            case _:
                name = change.target
        daemon = dataflow.parts.by_node().get(name)
        if daemon is None:
            raise RequestRefused("failed", f'the daemon of node "{name}" has not reported it yet')
        return daemon

    def _place(self, node: ResolvedNode) -> str:
        daemons = [
            ConnectedDaemon(one.key, one.register.machine_id, one.register.labels)
            for one in self._membership.connected()
        ]
        return choose_daemon(node.id, node.deploy, daemons).daemon_id

    @staticmethod
    def _readers_elsewhere(
        dataflow: Dataflow, node: str, daemon: str
    ) -> list[protocol.GraphChange]:
        """Return the changes for readers on other machines; the runner of the node sees its own."""
        by_node = dataflow.parts.by_node()
        readers = readers_of(dataflow.spec.resolved, node)
        return [
            one
            for one in readers
            if by_node.get(one.target, daemon) != daemon
            and not dataflow.parts[by_node[one.target]].ended
        ]

    def _require_connected(self, daemon: str) -> None:
        if not self._membership.is_connected(daemon):
            raise RequestRefused("failed", f'no connection to daemon "{daemon}"')

    def _next_step(self, operation: _Operation, dataflow: Dataflow) -> list[Command]:
        change = operation.steps.popleft()
        daemon = operation.daemon = self._daemon_of(dataflow, change)
        part = dataflow.parts[daemon]
        if part.ended:
            text = f'all nodes of {dataflow.label} on daemon "{daemon}" have ended'
            raise RequestRefused("failed", text)
        if part.state is not PartState.RUNNING:
            text = f'the nodes of {dataflow.label} on daemon "{daemon}" are being started'
            raise RequestRefused("conflict", text)
        self._require_connected(daemon)
        by_node = dataflow.parts.by_node()
        if isinstance(change, protocol.AddNode):
            by_node[change.node.id] = daemon
        edges = remote_edges(applied(dataflow.spec.resolved, change), by_node).get(daemon, ())
        message = ChangePart(
            call=operation.requested.fresh_id,
            dataflow_id=dataflow.id,
            attempt=part.attempt,
            links=dataflow.parts.links_of(part, self._membership, edges),
            change=change,
        )
        return [SendToDaemon(daemon, message)]

    def answered(self, daemon: str, message: PartResult) -> list[Command]:
        """Continue after the answer of a daemon."""
        found = (o for o in self._operations.values() if o.requested.fresh_id == message.call)
        operation = next(found, None)
        if operation is None or operation.daemon != daemon or operation.starts_part:
            return []
        if message.problem is not None:
            return self._fail(operation, clean_lines(message.problem))
        dataflow = self._registry.get(operation.dataflow_id)
        if not operation.steps or dataflow is None:
            return self._succeed(operation)
        try:
            return self._next_step(operation, dataflow)
        except RequestRefused as problem:
            return self._fail(operation, f"changed in part: {problem}")

    def daemon_lost(self, daemon: str) -> list[Command]:
        """Fail the changes that wait for a daemon."""
        commands: list[Command] = []
        for operation in list(self._operations.values()):
            if operation.daemon == daemon:
                text = f'the connection to daemon "{daemon}" was lost; `dora node list` shows'
                commands += self._fail(operation, f"{text} whether the change took place")
        return commands

    def settle(self) -> list[Command]:
        """Answer the requests whose dataflow has ended or whose further part runs."""
        commands: list[Command] = []
        for operation in list(self._operations.values()):
            dataflow = self._registry.get(operation.dataflow_id)
            if dataflow is None or dataflow.has_ended:
                commands += self._fail(operation, "the dataflow has ended")
            elif operation.starts_part:
                reason = dataflow.not_added.pop(operation.daemon, None)
                part = dataflow.parts.get(operation.daemon)
                if part is None:
                    commands += self._fail(operation, reason or "the node was not started")
                elif part.state is PartState.RUNNING:
                    commands += self._succeed(operation)
                elif dataflow.phase is Phase.STOPPING:
                    commands += self._fail(operation, "the dataflow is being stopped")
                elif part.state is PartState.ENDED:
                    commands += self._succeed(operation)
        return commands

    def drop(self, client: int, number: int | None) -> None:
        """Forget the client of a request (None: of all its requests); the change continues."""
        for operation in self._operations.values():
            if operation.requested.is_of(client, number):
                operation.client_waits = False

    def _succeed(self, operation: _Operation) -> list[Command]:
        del self._operations[operation.dataflow_id]
        requested = operation.requested
        if not operation.client_waits:
            return []
        answer = GraphChanged(uuid=operation.dataflow_id, daemon=operation.answer_daemon)
        return [AnswerClient(requested.client, requested.number, answer)]

    def _fail(self, operation: _Operation, problem: str) -> list[Command]:
        del self._operations[operation.dataflow_id]
        requested = operation.requested
        if not operation.client_waits:
            return []
        return [FailClient(requested.client, requested.number, problem)]
