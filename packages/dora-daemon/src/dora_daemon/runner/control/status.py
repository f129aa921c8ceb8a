"""State and counters of the dataflow, its nodes and edges, as sent to the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable

from dora_config.protocol.runner import (
    NodeStatus,
    RunnerHistory,
    RunnerStatus,
    ShownState,
    Statistics,
)
from dora_daemon._version import __version__
from dora_daemon.runner.machine.snapshot import NodeSnapshot, NodeState
from dora_daemon.runner.machine.streams import RUNNER_NODE, shown_target
from dora_daemon.runner.nodes.edge_status import edge_status
from dora_daemon.runner.nodes.local_nodes import LocalNode
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.service import Runner
from dora_node_api.protocol.messages import INSPECTOR

_SHOWN: dict[NodeState, ShownState] = {
    NodeState.PLANNED: "Starting",
    NodeState.CONNECTING: "Starting",
    NodeState.WAITING: "Starting",
    NodeState.RUNNING: "Running",
    NodeState.STOPPING: "Stopping",
    NodeState.BACKING_OFF: "Restarting",
    NodeState.ABSENT: "Stopped",
}


class StatusReporter:
    """Answers GetStatus and GetStatistics."""

    def __init__(self, runner: Runner, lines_shed: Callable[[], int]) -> None:
        """``lines_shed``: log lines that were dropped because a follower was too slow."""
        self._runner = runner
        self._lines_shed = lines_shed

    def status(self) -> RunnerStatus:
        """Return the state of the dataflow and of each node."""
        plan, services = self._runner.plan, self._runner.services
        state, now = self._runner.dispatcher.state, self._runner.dispatcher.now()
        supervisor = self._runner.link
        return RunnerStatus(
            dataflow_id=plan.dataflow_id,
            version=__version__,
            name=plan.name,
            phase=state.phase,
            nodes=tuple(
                node_status(node, services.nodes[node.node], services.registry, now)
                for node in state.nodes()
            ),
            result=state.result,
            started_at=self._runner.started_at,
            lines_shed=self._lines_shed(),
            link=None if supervisor is None else supervisor.report(),
            only_virtual_left=state.only_virtual_left,
            revision=services.nodes.revision,
        )

    def history(self) -> RunnerHistory:
        """Return the kept events, and the present state of nodes and edges."""
        kept = self._runner.services.logs.history
        return RunnerHistory(
            entries=kept.entries(),
            dropped=kept.dropped,
            nodes=self.status().nodes,
            edges=self.statistics().edges,
        )

    def statistics(self) -> Statistics:
        """Return the counters of each edge."""
        own = (RUNNER_NODE, INSPECTOR)
        registry, supervisor = self._runner.services.registry, self._runner.link
        queues = [entry for entry in registry.all() if entry.edge.target not in own]
        status = edge_status if supervisor is None else supervisor.edge_status
        return Statistics(edges=tuple(status(entry) for entry in queues), at=time.monotonic())


def shown_state(node: NodeSnapshot, *, degraded: bool) -> ShownState:
    """Return the state of a node as shown to users."""
    if node.state is NodeState.ENDED:
        if node.result is not None and node.result.outcome != "success":
            return "Failed"
        return "Stopped" if node.stopped else "Finished"
    if node.state is NodeState.RUNNING and degraded:
        return "Degraded"
    if node.state is NodeState.CONNECTING and node.restarts:
        return "Restarting"
    return _SHOWN[node.state]


def node_status(
    node: NodeSnapshot, local: LocalNode, registry: QueueRegistry, now: float
) -> NodeStatus:
    """Return the state and counters of a node; ``now``: time of the state machine's clock."""
    cause, at = node.last_restart or (None, now)
    inputs, process = local.inputs, local.process
    load = None if process is None else process.load.sample(now)
    incarnation, waiting = local.waiting
    if incarnation != node.incarnation or node.result is not None:
        waiting = None
    blocked = [q for q in registry.out_of(node.node) if q.keeper.statistics().blocked]
    return NodeStatus(
        node=node.node,
        status=shown_state(node, degraded=bool(inputs.broken) or waiting is not None),
        pid=node.pid,
        incarnation=node.incarnation,
        restarts=node.restarts,
        last_restart=cause,
        last_restart_ago=None if cause is None else max(0.0, now - at),
        dynamic=node.dynamic,
        broken_inputs=tuple(sorted(inputs.broken)),
        blocked_on=shown_target(blocked[0].edge) if blocked else None,
        cpu_percent=None if load is None else load.cpu_percent,
        memory_bytes=None if load is None else load.memory_bytes,
        cpu_seconds=None if load is None else load.cpu_seconds,
        read_bytes=None if load is None else load.read_bytes,
        written_bytes=None if load is None else load.written_bytes,
        queued=registry.queued(node.node),
        health_kills=node.health_kills,
        input_timeouts=inputs.timeouts,
        input_recoveries=inputs.recoveries,
        error=waiting if node.result is None else node.result.message or None,
        held=local.held,
    )
