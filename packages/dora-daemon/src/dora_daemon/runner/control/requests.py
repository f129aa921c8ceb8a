"""Answers the requests of the control socket: state, counters, and changes of the runner."""

from __future__ import annotations

import os
import time

from pydantic_core import to_json

from dora_config.protocol import runner as protocol
from dora_config.protocol.graph_checks import InvalidChange
from dora_config.protocol.run_plan import RunPlan
from dora_daemon._version import __version__
from dora_daemon.runner.control.edge_changes import EdgeChanges
from dora_daemon.runner.control.node_changes import NodeChanges
from dora_daemon.runner.control.node_lookup import NodeLookup, require_running
from dora_daemon.runner.control.replacement import NodeReplacement
from dora_daemon.runner.errors import PartEnds, PreparationError, QueueUnavailable, RequestRefused
from dora_daemon.runner.machine.events import BarrierReleased, RunStopRequested
from dora_daemon.runner.machine.node import NodeLifecycle, NodeState
from dora_daemon.runner.machine.streams import RUNNER_NODE, shown_target
from dora_daemon.runner.nodes.local_nodes import LocalNode
from dora_daemon.runner.nodes.queues import QueueEntry, QueueRegistry
from dora_daemon.runner.service import Runner
from dora_node_api.protocol.messages import (
    INSPECTOR,
    DeleteParam,
    ReloadOperator,
    SendOutput,
    SetParam,
)

MAX_KEY_BYTES = 256
"""Bytes of the key of a parameter."""
MAX_VALUE_BYTES = 65_536
"""Bytes of the value of a parameter as JSON."""
MAX_PARAMS = 1024
"""Parameters of one node."""

_SHOWN: dict[NodeState, protocol.ShownState] = {
    NodeState.PLANNED: "Starting",
    NodeState.CONNECTING: "Starting",
    NodeState.WAITING: "Starting",
    NodeState.RUNNING: "Running",
    NodeState.STOPPING: "Stopping",
    NodeState.BACKING_OFF: "Restarting",
    NodeState.ABSENT: "Stopped",
}


class ControlRequests:
    """Answers requests about the dataflow; those about the process do not come here."""

    def __init__(self, runner: Runner) -> None:
        dispatcher, services = runner.dispatcher, runner.services
        self._plan = runner.plan
        self._dispatcher = dispatcher
        self._runner = runner
        self._services = services
        self._lookup = NodeLookup(runner)
        self._edges = EdgeChanges(runner, self._lookup)
        self._changes = NodeChanges(runner, self._lookup, self._edges)
        self._replacement = NodeReplacement(runner, self._lookup)

    async def answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply:
        """Return the reply, which is a Refusal if the request fails."""
        before = self._services.nodes.revision
        try:
            return await self._answer(request) or protocol.Done()
        except (RequestRefused, InvalidChange, PreparationError, QueueUnavailable) as error:
            return protocol.Refusal(message=str(error), ended=isinstance(error, PartEnds))
        except OSError as error:  # such as no free descriptor
            return protocol.Refusal(message=f"the request failed: {error}")
        finally:
            if self._services.nodes.revision != before:
                self._dispatcher.notify()

    async def _answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply | None:
        if isinstance(request, protocol.Holdable):
            node = request.node.id if isinstance(request, protocol.ReplaceNode) else request.node
            await self._changes.until_released(node, request)
        match request:
            case protocol.Handshake():
                return check_handshake(request, self._plan)
            case protocol.GetStatus():
                return self._status()
            case protocol.GetStatistics():
                return self._statistics()
            case protocol.GetHistory():
                kept = self._services.logs.history
                return protocol.RunnerHistory(
                    entries=kept.entries(),
                    dropped=kept.dropped,
                    nodes=self._status().nodes,
                    edges=self._statistics().edges,
                )
            case protocol.AcknowledgeResult():
                pass  # `dora run` keeps no result
            case protocol.Release():
                self._dispatcher.emit(BarrierReleased())
            case protocol.SetLinkPeers():
                self._set_peers(request)
            case protocol.SetLinks():
                require_running(self._dispatcher.state)
                self._runner.set_links(request.links, request.credentials).apply()
            case protocol.StopAllNodes():
                stop = RunStopRequested(request.reason, request.grace, request.force)
                self._dispatcher.emit(stop)
            case protocol.StopNode():
                await self._changes.stop(request.node, request.grace)
            case protocol.RestartNode():
                await self._changes.restart(request)
            case protocol.AddNode():
                await self._changes.add(request)
            case protocol.RemoveNode():
                await self._changes.remove(request.node, request.grace)
            case protocol.ReplaceNode():
                await self._replacement.replace(request)
            case protocol.ConnectInput():
                await self._edges.connect(request)
            case protocol.DisconnectInput():
                self._edges.disconnect(request)
            case protocol.GetNodes():
                return self._changes.nodes()
            case _:
                return self._message_node(request)
        return None

    def _message_node(self, request: protocol.RunnerRequest) -> protocol.RunnerReply | None:
        match request:
            case protocol.HoldNode():
                self._lookup.local(request.node).operator_hold = request.reason
            case protocol.SetParam():
                self._set_param(request)
            case protocol.DeleteParam():
                self._delete_param(request)
            case protocol.GetParams():
                return protocol.Params(values=dict(self._lookup.local(request.node).params))
            case protocol.GetDetails():
                process = self._lookup.local(request.node).connected
                return protocol.NodeDetails(details=None if process is None else process.details)
            case protocol.Publish():
                self._publish(request)
            case protocol.ReloadCode():
                self._reload(request)
            case _:
                raise RequestRefused(f'request "{request.kind}" is not supported')
        return None

    def _status(self) -> protocol.RunnerStatus:
        """Return the state of the dataflow and of each node."""
        plan, services, now = self._plan, self._services, self._dispatcher.now()
        return protocol.RunnerStatus(
            dataflow_id=plan.dataflow_id,
            version=__version__,
            name=plan.name,
            state=self._runner.state(),
            nodes=tuple(
                node_status(node, services.nodes[node.id], services.registry, now)
                for node in self._dispatcher.state.nodes()
            ),
        )

    def _statistics(self) -> protocol.Statistics:
        """Return the counters of each edge."""
        own = (RUNNER_NODE, INSPECTOR)
        supervisor = self._runner.link
        queues = [one for one in self._services.registry.all() if one.edge.target not in own]
        status = QueueEntry.status if supervisor is None else supervisor.edge_status
        return protocol.Statistics(edges=tuple(map(status, queues)), at=time.monotonic())

    def _set_param(self, request: protocol.SetParam) -> None:
        node = self._lookup.local(request.node)
        if not 0 < len(request.key.encode()) <= MAX_KEY_BYTES:
            raise RequestRefused(
                f'parameter key "{request.key[:MAX_KEY_BYTES]}" must have 1 to'
                f" {MAX_KEY_BYTES} bytes"
            )
        size = len(to_json(request.value))
        if size > MAX_VALUE_BYTES:
            raise RequestRefused(
                f'value of parameter "{request.key}" is too large: {size} bytes as JSON, at most'
                f" {MAX_VALUE_BYTES} are allowed"
            )
        if len(node.params) >= MAX_PARAMS and request.key not in node.params:
            raise RequestRefused(
                f'node "{node.id}" has {len(node.params)} parameters, and no more are allowed;'
                " delete some with `dora param delete`"
            )
        self._services.nodes.set_param(node.id, request.key, request.value)
        node.send(SetParam(request.key, request.value))

    def _delete_param(self, request: protocol.DeleteParam) -> None:
        node = self._lookup.local(request.node)
        if request.key not in node.params:
            raise RequestRefused(
                f'param not found: node "{node.id}" has no parameter "{request.key}"'
            )
        self._services.nodes.delete_param(node.id, request.key)
        node.send(DeleteParam(request.key))

    def _reload(self, request: protocol.ReloadCode) -> None:
        """Reload the code of an operator, or of all."""
        node = self._lookup.local(request.node)
        if request.operator not in {None, *(operator.id for operator in node.spec.operators)}:
            raise RequestRefused(f'node "{node.id}" has no operator "{request.operator}"')
        if not node.send(ReloadOperator(request.operator)):
            raise RequestRefused(f'node "{node.id}" is not connected')

    def _publish(self, request: protocol.Publish) -> None:
        """Make a node send a sample on one of its outputs."""
        node, output = self._lookup.local(request.node), request.output
        if output not in node.spec.outputs:
            raise RequestRefused(
                f'node "{node.id}" has no output "{output}"; its outputs are:'
                f" {', '.join(node.spec.outputs) or 'none'}"
            )
        if output in node.spec.printed_outputs:
            raise RequestRefused(
                f'output "{output}" of node "{node.id}" is sent by the runner, from printed lines'
            )
        message = SendOutput(output, request.data, request.metadata)
        if not node.send(message):
            raise RequestRefused(
                f'node "{node.id}" is not connected, so it cannot send the published sample'
            )

    def _set_peers(self, request: protocol.SetLinkPeers) -> None:
        supervisor = self._runner.link
        if supervisor is None:
            raise RequestRefused(
                "this part of the dataflow has no link: no edge leaves or enters it"
            )
        supervisor.set_peers(request.peers, request.ended)


def check_handshake(
    request: protocol.Handshake, plan: RunPlan
) -> protocol.HandshakeReply | protocol.Refusal:
    """Return the reply to a daemon, by the version of its protocol."""
    theirs, ours = request.protocol, protocol.RUNNER_PROTOCOL
    if theirs[0] != ours[0] or abs(theirs[1] - ours[1]) > 1:
        return protocol.Refusal(
            message=f"its nodes are run by dora {__version__} (runner protocol"
            f" {ours[0]}.{ours[1]}), which dora {request.release} ({theirs[0]}.{theirs[1]})"
            " cannot control"
        )
    return protocol.HandshakeReply(
        version=__version__, dataflow_id=plan.dataflow_id, name=plan.name, pid=os.getpid()
    )


def shown_state(node: NodeLifecycle, *, degraded: bool) -> protocol.ShownState:
    """Return the state of a node as shown to users."""
    if node.state is NodeState.ENDED:
        if node.result is not None and node.result.outcome != "success":
            return "Failed"
        return "Stopped" if node.stopped else "Finished"
    if node.state is NodeState.RUNNING and degraded:
        return "Degraded"
    if node.state is NodeState.CONNECTING and node.barrier_open and node.up:
        return "Running"
    if node.state is NodeState.CONNECTING and node.restarts:
        return "Restarting"
    return _SHOWN[node.state]


def node_status(
    node: NodeLifecycle, local: LocalNode, registry: QueueRegistry, now: float
) -> protocol.NodeStatus:
    """Return the state and counters of a node; ``now``: time of the state machine's clock."""
    cause, at = node.last_restart or (None, now)
    inputs, process = local.inputs, local.process
    load = None if process is None else process.load.sample(now)
    waiting = None if local.connected is None else local.connected.waits
    blocked = [q for q in registry.out_of(node.id) if q.keeper.statistics().blocked]
    return protocol.NodeStatus(
        node=node.id,
        status=shown_state(node, degraded=bool(inputs.broken) or waiting is not None),
        pid=node.pid,
        incarnation=node.incarnation,
        restarts=node.restarts,
        last_restart=cause,
        last_restart_ago=None if cause is None else max(0.0, now - at),
        dynamic=node.dynamic,
        broken_inputs=tuple(sorted(inputs.broken)),
        blocked_on=shown_target(blocked[0].edge) if blocked else None,
        **({} if load is None else load._asdict()),
        queued=registry.queued(node.id),
        health_kills=node.health_kills,
        input_timeouts=inputs.timeouts,
        input_recoveries=inputs.recoveries,
        error=waiting if node.result is None else node.result.message or None,
        held=local.held,
    )
