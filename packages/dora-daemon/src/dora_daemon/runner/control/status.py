"""The state of nodes and edges in the words of the control protocol; reads, changes nothing."""

from __future__ import annotations

import time

from dora_config.protocol.runner import EdgeStatus, NodeStatus
from dora_config.protocol.runner import NodeState as ShownState
from dora_daemon.runner.link.streams import shown_target
from dora_daemon.runner.machine.health import InputWatch
from dora_daemon.runner.machine.node import NodeLife, NodeState
from dora_daemon.runner.nodes.queues import KeptQueue, QueueBook
from dora_daemon.runner.process.metrics import ProcessLoad

_SHOWN: dict[NodeState, ShownState] = {
    NodeState.PLANNED: "Starting",
    NodeState.CONNECTING: "Starting",
    NodeState.WAITING: "Starting",
    NodeState.RUNNING: "Running",
    NodeState.STOPPING: "Stopping",
    NodeState.BACKING_OFF: "Restarting",
    NodeState.ABSENT: "Stopped",
}


def shown_state(life: NodeLife, broken: set[str]) -> ShownState:
    """The word that users see for a node."""
    if life.state is NodeState.ENDED:
        if life.result is not None and life.result.outcome != "success":
            return "Failed"
        return "Stopped" if life.stopping is not None else "Finished"
    if life.state is NodeState.RUNNING and broken:
        return "Degraded"
    if life.state is NodeState.CONNECTING and life.restarts:
        return "Restarting"
    return _SHOWN[life.state]


def node_status(
    life: NodeLife, book: QueueBook, inputs: InputWatch, load: ProcessLoad | None, now: float
) -> NodeStatus:
    """One node with its counters; ``now``: of the state machine's clock."""
    cause, at = life.last_restart or (None, now)
    broken = inputs.broken.get(life.id, set())
    blocked = [q for q in book.out_of(life.id) if q.keeper.statistics().blocked]
    return NodeStatus(
        node=life.id,
        state=shown_state(life, broken),
        pid=life.pid,
        incarnation=life.incarnation,
        restarts=life.restarts,
        last_restart=cause,
        last_restart_ago=None if cause is None else max(0.0, now - at),
        dynamic=life.dynamic,
        broken_inputs=tuple(sorted(broken)),
        blocked_on=shown_target(blocked[0].edge) if blocked else None,
        cpu_percent=None if load is None else load.cpu_percent,
        memory_bytes=None if load is None else load.memory_bytes,
        read_bytes=None if load is None else load.read_bytes,
        written_bytes=None if load is None else load.written_bytes,
        queued=book.queued(life.id),
        health_kills=life.health_kills,
        input_timeouts=inputs.timeouts.get(life.id, 0),
        input_recoveries=inputs.recoveries.get(life.id, 0),
        error=life.result.message or None if life.result is not None else None,
    )


def edge_status(kept: KeptQueue) -> EdgeStatus:
    """One edge with its counters."""
    counted = kept.keeper.statistics()
    edge = kept.edge
    source = f"{edge.source}/{edge.output}"
    idle = None
    if counted.last_arrival_ns:
        idle = max(0.0, (time.monotonic_ns() - counted.last_arrival_ns) / 1e9)
    latency: dict[str, float] = {}
    for name, fraction in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        seconds = counted.latency.quantile(fraction)
        if seconds is not None:
            latency[name] = seconds * 1e6
    return EdgeStatus(
        source=source,
        target=shown_target(edge),
        policy=kept.spec.policy,
        bound=kept.spec.bound,
        sent=counted.sent,
        received=counted.received,
        dropped=counted.dropped,
        queued=counted.queued,
        bytes_sent=counted.bytes_sent,
        bytes_received=counted.bytes_received,
        blocked=counted.blocked,
        idle_seconds=idle,
        latency_us=latency,
    )
