"""State and counters of the dataflow, its nodes and edges, as sent to the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dora_config.protocol.runner import (
    NodeStatus,
    RunnerHistory,
    RunnerStatus,
    ShownState,
    Statistics,
)
from dora_daemon._version import __version__
from dora_daemon.runner.dispatcher import Dispatcher
from dora_daemon.runner.logs.history import RunnerHistory as KeptHistory
from dora_daemon.runner.machine.health import InputWatch
from dora_daemon.runner.machine.snapshot import NodeSnapshot, NodeState
from dora_daemon.runner.machine.streams import RUNNER_NODE, shown_target
from dora_daemon.runner.nodes.edge_status import edge_status
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.process.metrics import Metrics, ProcessLoad
from dora_daemon.runner.process.supervisor import Processes
from dora_node_api.protocol.messages import INSPECTOR

if TYPE_CHECKING:
    from dora_config.protocol.run_plan import RunPlan
    from dora_daemon.runner.link.lazy import LazyLink

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

    def __init__(
        self,
        plan: RunPlan,
        dispatcher: Dispatcher,
        registry: QueueRegistry,
        processes: Processes,
        inputs: InputWatch,
        link: LazyLink,
        history: KeptHistory,
        *,
        started_at: Callable[[], float | None],
        lines_shed: Callable[[], int],
        revision: Callable[[], int],
    ) -> None:
        """``lines_shed``: log lines that were dropped because a follower was too slow.

        ``revision``: number of changes of the nodes.
        """
        self._plan = plan
        self._dispatcher = dispatcher
        self._registry = registry
        self._processes = processes
        self._inputs = inputs
        self._link = link
        self._history = history
        self._started_at = started_at
        self._lines_shed = lines_shed
        self._revision = revision
        self._metrics = Metrics()

    def status(self) -> RunnerStatus:
        """Return the state of the dataflow and of each node."""
        state, now = self._dispatcher.state, self._dispatcher.now()
        pids = {node: r.process.pid for node, r in self._processes.running.items()}
        loads = self._metrics.sample(pids, now)
        supervisor = self._link.supervisor
        return RunnerStatus(
            dataflow_id=self._plan.dataflow_id,
            version=__version__,
            name=self._plan.name,
            phase=state.phase,
            nodes=tuple(
                node_status(node, self._registry, self._inputs, loads.get(node.node), now)
                for node in state.nodes()
            ),
            result=state.result,
            started_at=self._started_at(),
            lines_shed=self._lines_shed(),
            link=None if supervisor is None else supervisor.report(),
            only_virtual_left=state.only_virtual_left,
            revision=self._revision(),
        )

    def history(self) -> RunnerHistory:
        """Return the kept events, and the present state of nodes and edges."""
        return RunnerHistory(
            entries=self._history.entries(),
            dropped=self._history.dropped,
            nodes=self.status().nodes,
            edges=self.statistics().edges,
        )

    def statistics(self) -> Statistics:
        """Return the counters of each edge."""
        own = (RUNNER_NODE, INSPECTOR)
        queues = [entry for entry in self._registry.all() if entry.edge.target not in own]
        supervisor = self._link.supervisor
        status = edge_status if supervisor is None else supervisor.edge_status
        return Statistics(edges=tuple(status(entry) for entry in queues), at=time.monotonic())


def shown_state(node: NodeSnapshot, broken: set[str]) -> ShownState:
    """Return the state of a node as shown to users."""
    if node.state is NodeState.ENDED:
        if node.result is not None and node.result.outcome != "success":
            return "Failed"
        return "Stopped" if node.stopped else "Finished"
    if node.state is NodeState.RUNNING and broken:
        return "Degraded"
    if node.state is NodeState.CONNECTING and node.restarts:
        return "Restarting"
    return _SHOWN[node.state]


def node_status(
    node: NodeSnapshot,
    registry: QueueRegistry,
    inputs: InputWatch,
    load: ProcessLoad | None,
    now: float,
) -> NodeStatus:
    """Return the state and counters of a node; ``now``: time of the state machine's clock."""
    cause, at = node.last_restart or (None, now)
    broken = inputs.broken.get(node.node, set())
    blocked = [q for q in registry.out_of(node.node) if q.keeper.statistics().blocked]
    return NodeStatus(
        node=node.node,
        status=shown_state(node, broken),
        pid=node.pid,
        incarnation=node.incarnation,
        restarts=node.restarts,
        last_restart=cause,
        last_restart_ago=None if cause is None else max(0.0, now - at),
        dynamic=node.dynamic,
        broken_inputs=tuple(sorted(broken)),
        blocked_on=shown_target(blocked[0].edge) if blocked else None,
        cpu_percent=None if load is None else load.cpu_percent,
        memory_bytes=None if load is None else load.memory_bytes,
        cpu_seconds=None if load is None else load.cpu_seconds,
        read_bytes=None if load is None else load.read_bytes,
        written_bytes=None if load is None else load.written_bytes,
        queued=registry.queued(node.node),
        health_kills=node.health_kills,
        input_timeouts=inputs.timeouts.get(node.node, 0),
        input_recoveries=inputs.recoveries.get(node.node, 0),
        error=node.result.message or None if node.result is not None else None,
    )
