"""Creates the socket, queues, segments and logs of the nodes on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import LogLine, RunnerEvent
from dora_daemon.runner.logs.gate import Gate
from dora_daemon.runner.logs.history import RunnerHistory
from dora_daemon.runner.logs.logs import now_text
from dora_daemon.runner.machine.edges import backpressure_cycles
from dora_daemon.runner.machine.events import StateEvent
from dora_daemon.runner.machine.streams import crossing_cycles
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
from dora_node_api.protocol.extensions import ExtensionTable
from dora_node_api.protocol.messages import ExtensionDropped
from dora_node_api.transport.shared.board import Board


class NodeServices:
    """Parts of a runner that share the tables of nodes, connections, queues and segments."""

    def __init__(
        self,
        resources: ExitStack,
        plan: RunPlan,
        *,
        socket: Path,
        emit: Callable[[StateEvent], None],
        on_staged: Callable[[], None],
        on_event: Callable[[RunnerEvent], None],
        history: RunnerHistory,
        gate: Gate | None,
        summary_in_node_log: bool,
    ) -> None:
        """``resources`` closes the parts.

        ``summary_in_node_log``: write the summary of dropped messages into the log of a node, since
        no terminal shows the log of the runner.
        """
        self.nodes = nodes = LocalNodes(plan.revision)
        resources.callback(nodes.close)
        self._summary_in_node_log = summary_in_node_log
        board = Board.create()
        self.segments = SegmentTable(nodes)
        resources.callback(self.segments.close)
        outputs = RunnerOutputs(board, self.segments)
        self.logs = LogRouter(plan, nodes, outputs, on_event=on_event, history=history, gate=gate)
        self.registry = QueueRegistry(board, self.segments, self.logs.warn_in_node_log)
        resources.callback(self.registry.close)
        resources.callback(outputs.close)
        self.router = QueueRouter(nodes, self.registry, outputs)
        self.cleanup = QueueCleanup(self.registry)
        resources.callback(self.cleanup.close)
        self.drops = StartUpDrops(self.registry, self.logs.log, self._summarize)
        resources.callback(self.drops.close)
        extensions = ExtensionTable(
            lambda node, *dropped: nodes.send(node, ExtensionDropped(*dropped))
        )
        self.departures = NodeDepartures(nodes, self.registry, self.cleanup, extensions, emit)
        resources.callback(self.departures.close)
        self.handshake = NodeHandshake(
            plan,
            nodes,
            self.registry,
            self.router,
            self.segments,
            emit=emit,
            warn=self.logs.warn,
            on_staged=on_staged,
            cycles=_cycles(plan),
        )
        messages = NodeMessages(
            nodes,
            self.handshake,
            self.departures,
            self.segments,
            extensions,
            emit=emit,
            log=self.drops.log,
        )
        resources.callback(NodeServer(socket, messages).close)

    def _summarize(self, message: str, first: LogLine) -> None:
        node = first.node if self._summary_in_node_log else None
        line = {"ts": now_text(), "node": node, "message": message, "fields": None}
        self.logs.log(first.model_copy(update=line))


def _cycles(plan: RunPlan) -> tuple[tuple[str, ...], ...]:
    """Return the groups of nodes that can wait for each other, here and across machines."""
    crossing = () if plan.links is None else crossing_cycles(plan.links)
    return (*backpressure_cycles(plan.local_nodes()), *crossing)
