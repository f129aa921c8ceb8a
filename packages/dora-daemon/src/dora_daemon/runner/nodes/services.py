"""Creates the socket, queues, segments and logs of the nodes on this machine."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dora_config.history.entries import NodeWaits
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import LogLine, RunOutput
from dora_daemon.link import LINK_NODE
from dora_daemon.out_dir import history_file, runner_log_file
from dora_daemon.runner.dispatcher import Dispatcher
from dora_daemon.runner.logs.history import KeptHistory, beginning
from dora_daemon.runner.logs.log_entries import as_level
from dora_daemon.runner.logs.log_files import LogFile
from dora_daemon.runner.logs.logs import OutputGate, now_text
from dora_daemon.runner.machine.edges import backpressure_cycles
from dora_daemon.runner.machine.events import OutputsClosed, RunStopRequested
from dora_daemon.runner.machine.streams import crossing_cycles
from dora_daemon.runner.nodes.inspection import OutputReaders
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.log_router import LogRouter
from dora_daemon.runner.nodes.publishing import RunnerOutputs
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.nodes.routing import QueueRouter
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_daemon.runner.nodes.sessions import NodeSessions
from dora_daemon.runner.nodes.socket import NodeConnection, NodeServer
from dora_daemon.runner.nodes.start_up_drops import StartUpDrops
from dora_node_api.errors import ExtensionError
from dora_node_api.frozen import replace
from dora_node_api.protocol import messages
from dora_node_api.protocol.extensions import ExtensionTable
from dora_node_api.protocol.frames import close_all
from dora_node_api.transport.shared.board import Board

MAX_OWN_LOG = 1_000_000
"""Bytes at which the log file of the runner is rotated."""


class NodeServices:
    """Services of a runner for its nodes; handler of the connections of nodes and link."""

    def __init__(
        self,
        resources: ExitStack,
        plan: RunPlan,
        dispatcher: Dispatcher,
        *,
        socket: Path,
        on_event: Callable[[RunOutput], None],
        gate: OutputGate | None,
    ) -> None:
        """``resources`` closes what is created here."""
        self.plan = plan
        self.dispatcher = dispatcher
        self.socket = socket
        """Socket of the nodes and the link."""
        self.nodes = nodes = LocalNodes(plan.revision)
        resources.callback(nodes.close)
        self._emit = dispatcher.emit
        board = Board.create()
        self.segments = SegmentTable(nodes)
        resources.callback(self.segments.close)
        outputs = RunnerOutputs(board, self.segments)
        history = KeptHistory(history_file(plan), beginning(plan))
        file = LogFile(runner_log_file(history_file(plan)), max_size=MAX_OWN_LOG)
        resources.callback(file.close)
        self.logs = LogRouter(plan, nodes, outputs, on_event, history, file, gate)
        self.registry = QueueRegistry(board, self.segments, self.logs.warn_in_node_log)
        resources.callback(self.registry.close)
        resources.callback(outputs.close)
        self.router = QueueRouter(nodes, self.registry, outputs)
        self.readers = OutputReaders(plan, nodes, self.registry, self.router)
        self.drops = StartUpDrops(self.registry, self.logs.log, self._summarize)
        resources.callback(self.drops.close)
        self._extensions = ExtensionTable(
            lambda node, *dropped: nodes.send(node, messages.ExtensionDropped(*dropped))
        )
        self.sessions = NodeSessions(
            plan,
            nodes,
            self.registry,
            self.router,
            self.segments,
            self._extensions,
            dispatcher,
            self.logs.warn,
            _cycles(plan),
        )
        resources.callback(self.sessions.close)
        resources.callback(NodeServer(socket, self).close)

    def received(
        self, connection: NodeConnection, message: messages.Message, descriptors: tuple[int, ...]
    ) -> None:
        """Process one message; closes descriptors that are not kept."""
        node, incarnation = connection.node, connection.incarnation
        match message:
            case messages.Hello() if node is None and message.node_id in (
                messages.INSPECTOR,
                messages.RECORDER,
            ):
                self.readers.hello(connection, message)
            case messages.Hello():
                self.sessions.hello(connection, message)
            case messages.WatchOutput() if connection in self.readers:
                self.readers.watch(connection, message)
            case messages.OpenSegment() if connection in self.readers:
                self.segments.reply(connection, message)
            case _ if node is None or incarnation is None:
                self.warn(f"ignored {type(message).__name__} from a process before its Hello")
            case messages.AddSegment(number=number, size=size) if len(descriptors) == 1:
                self.segments.add(incarnation, number, descriptors[0], size)
                return
            case messages.SaveState() if len(descriptors) == 1 and node in self.nodes:
                self.nodes[node].save(incarnation, message, descriptors[0])
                return
            case messages.HoldUpdates(reason=reason):
                connection.holds = reason
            case messages.OpenSegment():
                self.segments.reply(connection, message)
            case messages.ExtensionRequest(request, action, namespace, key, value):
                answer = self._use_extension(node, action, namespace, key, value)
                connection.send(replace(answer, request=request))
            case messages.Log():
                self._library_log(None if node == LINK_NODE else node, message)
            case messages.CloseOutputs(outputs=outputs):
                self._emit(OutputsClosed(node, outputs))
            case messages.StopDataflow(reason=reason):
                self._emit(RunStopRequested(f'node "{node}" requested it: {reason}'))
            case messages.ReportWaiting(text=text) if node in self.nodes:
                connection.waits = text
                self.logs.history.add(NodeWaits(node=node, text=text))
                if text is not None:
                    self._library_log(node, messages.Log("warn", text))
            case messages.ReportDetails(details=details):
                connection.details = details
            case messages.NodeLeaving():
                connection.leaving = True
            case _:
                self.warn(f'ignored unexpected {type(message).__name__} from node "{node}"')
        close_all(descriptors)

    def _use_extension(
        self, node: str, action: str, namespace: str, key: str, value: str
    ) -> messages.ExtensionAnswer:
        try:
            found = self._extensions.handle(node, action, namespace, key, b64decode(value))
        except (ExtensionError, ValueError) as error:
            return messages.ExtensionAnswer(0, problem=str(error))
        return messages.ExtensionAnswer(0, None if found is None else b64encode(found).decode())

    def disconnected(self, connection: NodeConnection) -> None:
        """Process the end of a connection."""
        self.sessions.disconnected(connection)
        self.readers.disconnected(connection)

    def warn(self, message: str) -> None:
        """Log a warning of the runner."""
        self.drops.log(LogLine(ts=now_text(), level="warn", message=message, target="dora.runner"))

    def _library_log(self, node: str | None, message: messages.Log) -> None:
        self.drops.log(
            LogLine(
                ts=now_text(),
                level=as_level(message.level),
                node=node,
                message=message.message,
                target=message.target or "dora",
                fields=message.fields,
            )
        )

    def _summarize(self, message: str, first: LogLine) -> None:
        line = {"ts": now_text(), "node": None, "message": message, "fields": None}
        self.logs.log(first.model_copy(update=line))


def _cycles(plan: RunPlan) -> tuple[tuple[str, ...], ...]:
    """Return the groups of nodes that can wait for each other, here and across machines."""
    crossing = () if plan.links is None else crossing_cycles(plan.links)
    return (*backpressure_cycles(plan.resolved.nodes), *crossing)
