"""Dispatches the messages of nodes."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable

from dora_config.protocol.runner_events import LogLine
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.logs.log_entries import as_level
from dora_daemon.runner.logs.logs import now_text
from dora_daemon.runner.machine.events import OutputsClosed, StateEvent, StopRequested
from dora_daemon.runner.nodes.departures import NodeDepartures
from dora_daemon.runner.nodes.handshake import NodeHandshake
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_node_api.errors import ExtensionError
from dora_node_api.frozen import replace
from dora_node_api.protocol.extensions import ExtensionTable
from dora_node_api.protocol.frames import close_all
from dora_node_api.protocol.messages import (
    AddSegment,
    CloseOutputs,
    ExtensionAnswer,
    ExtensionRequest,
    Hello,
    Log,
    Message,
    NodeLeaving,
    OpenSegment,
    SaveState,
    StopDataflow,
)


class NodeMessages:
    """Handler of the connections of nodes and of the link."""

    def __init__(
        self,
        nodes: LocalNodes,
        handshake: NodeHandshake,
        departures: NodeDepartures,
        segments: SegmentTable,
        extensions: ExtensionTable,
        *,
        emit: Callable[[StateEvent], None],
        log: Callable[[LogLine], None],
    ) -> None:
        self._nodes = nodes
        self._handshake = handshake
        self._departures = departures
        self._segments = segments
        self._extensions = extensions
        self._emit = emit
        self._log = log

    def received(
        self, connection: NodeConnection, message: Message, descriptors: tuple[int, ...]
    ) -> None:
        """Process one message; closes descriptors that are not kept."""
        node, incarnation = connection.node, connection.incarnation
        match message:
            case Hello():
                self._handshake.hello(connection, message)
            case _ if node is None or incarnation is None:
                self.warn(f"ignored {type(message).__name__} from a process before its Hello")
            case AddSegment(number=number, size=size) if len(descriptors) == 1:
                self._segments.add(incarnation, number, descriptors[0], size)
                return
            case SaveState() if len(descriptors) == 1 and node in self._nodes:
                self._nodes[node].save(incarnation, message, descriptors[0])
                return
            case OpenSegment():
                self._segments.reply(connection, message)
            case ExtensionRequest(request, action, namespace, key, value):
                answer = self._use_extension(node, action, namespace, key, value)
                connection.send(replace(answer, request=request))
            case Log():
                self._library_log(None if node == LINK_NODE else node, message)
            case CloseOutputs(outputs=outputs):
                self._emit(OutputsClosed(node, outputs))
            case StopDataflow(reason=reason):
                self._emit(StopRequested(f'node "{node}" requested it: {reason}'))
            case NodeLeaving():
                connection.leaving = True
            case _:
                self.warn(f'ignored unexpected {type(message).__name__} from node "{node}"')
        close_all(descriptors)

    def _use_extension(
        self, node: str, action: str, namespace: str, key: str, value: str
    ) -> ExtensionAnswer:
        try:
            found = self._extensions.handle(node, action, namespace, key, b64decode(value))
        except (ExtensionError, ValueError) as error:
            return ExtensionAnswer(0, problem=str(error))
        return ExtensionAnswer(0, None if found is None else b64encode(found).decode())

    def disconnected(self, connection: NodeConnection) -> None:
        """Process the end of a connection."""
        self._handshake.disconnected(connection)
        self._departures.disconnected(connection)

    def warn(self, message: str) -> None:
        """Log a warning of the runner."""
        self._log(LogLine(ts=now_text(), level="warn", message=message, target="dora.runner"))

    def _library_log(self, node: str | None, message: Log) -> None:
        self._log(
            LogLine(
                ts=now_text(),
                level=as_level(message.level),
                node=node,
                message=message.message,
                target=message.target or "dora",
                fields=message.fields,
            )
        )
