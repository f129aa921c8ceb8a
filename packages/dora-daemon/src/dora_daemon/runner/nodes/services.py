"""Creates everything that nodes on this machine connect to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import LogLine, RunnerEvent
from dora_daemon.runner.logs.gate import Gate
from dora_daemon.runner.logs.logs import now_text
from dora_daemon.runner.machine.edges import backpressure_cycles
from dora_daemon.runner.machine.events import StateEvent
from dora_daemon.runner.machine.streams import crossing_cycles
from dora_daemon.runner.nodes.connections import Connections
from dora_daemon.runner.nodes.departures import NodeDepartures
from dora_daemon.runner.nodes.handshake import NodeHandshake
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.log_router import LogRouter
from dora_daemon.runner.nodes.messages import NodeMessages
from dora_daemon.runner.nodes.publishing import RunnerOutputs
from dora_daemon.runner.nodes.queues import QueueCleanup, QueueRegistry
from dora_daemon.runner.nodes.routing import QueueRouter
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_daemon.runner.nodes.socket import NodeServer
from dora_daemon.runner.nodes.start_up_drops import StartUpDrops
from dora_node_api.transport.shared.board import Board


@dataclass(frozen=True, slots=True)
class NodeServices:
    """The parts that share the tables of nodes, connections, queues and segments."""

    nodes: LocalNodes
    connections: Connections
    segments: SegmentTable
    registry: QueueRegistry
    cleanup: QueueCleanup
    logs: LogRouter
    router: QueueRouter
    departures: NodeDepartures
    handshake: NodeHandshake
    drops: StartUpDrops


def open_node_services(
    resources: ExitStack,
    plan: RunPlan,
    nodes: LocalNodes,
    *,
    socket: Path,
    emit: Callable[[StateEvent], None],
    on_staged: Callable[[], None],
    on_event: Callable[[RunnerEvent], None],
    gate: Gate | None,
    summary_in_node_log: bool,
) -> NodeServices:
    """Create the parts; ``resources`` closes them.

    ``summary_in_node_log``: no terminal shows the runner's own lines.
    """
    board = Board.create()
    connections = Connections()
    segments = SegmentTable(connections)
    resources.callback(segments.close)
    outputs = RunnerOutputs(board, segments)
    logs = LogRouter(plan, nodes, outputs, on_event=on_event, gate=gate)
    registry = QueueRegistry(board, segments, logs.warn_about)
    resources.callback(registry.close)
    resources.callback(outputs.close)
    router = QueueRouter(nodes, registry, connections, outputs, logs)
    cleanup = QueueCleanup(registry)
    resources.callback(cleanup.close)

    def summarize(message: str, first: LogLine) -> None:
        node = first.node if summary_in_node_log else None
        line = {"ts": now_text(), "node": node, "message": message, "fields": None}
        logs.log(first.model_copy(update=line))

    drops = StartUpDrops(registry, logs.log, summarize)
    resources.callback(drops.close)
    departures = NodeDepartures(nodes, connections, registry, cleanup, emit)
    resources.callback(departures.close)
    handshake = NodeHandshake(
        plan,
        nodes,
        connections,
        registry,
        router,
        emit=emit,
        warn=logs.warn,
        on_staged=on_staged,
        cycles=_cycles(plan, nodes),
    )
    messages = NodeMessages(handshake, departures, segments, emit=emit, log=drops.log)
    resources.callback(NodeServer(socket, messages).close)
    return NodeServices(
        nodes,
        connections,
        segments,
        registry,
        cleanup,
        logs,
        router,
        departures,
        handshake,
        drops,
    )


def _cycles(plan: RunPlan, nodes: LocalNodes) -> tuple[tuple[str, ...], ...]:
    """Return the groups of nodes that can wait for each other, here and across machines."""
    crossing = () if plan.links is None else crossing_cycles(plan.links)
    return (*backpressure_cycles(nodes.specs.values()), *crossing)
