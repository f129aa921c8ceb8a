"""Processes of nodes and the link: checked and admitted at their Hello, cleaned up at their end.

A spawned node ends with its process. A dynamic node ends with its process too, or when it closes
its connection after `NodeLeaving`, or, if its process cannot be watched, when it closes it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import dora_node_api
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.dispatcher import Dispatcher
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine.events import (
    Exit,
    LinkConnected,
    NodeConnected,
    NodeDetached,
    NodeExited,
)
from dora_daemon.runner.machine.verdict import overwritten
from dora_daemon.runner.nodes.local_nodes import LocalNode, LocalNodes, QueueUser
from dora_daemon.runner.nodes.node_config import link_input, node_config
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.nodes.routing import QueueRouter, send_route
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_daemon.runner.process.import_failures import explain_import
from dora_daemon.runner.process.injection import explain
from dora_daemon.runner.process.spawn import watch_process
from dora_node_api.protocol import messages
from dora_node_api.protocol.extensions import ExtensionTable


@dataclass(eq=False)
class NodeSessions:
    """Connected processes. The state machine decides which are admitted."""

    _plan: RunPlan
    _nodes: LocalNodes
    _registry: QueueRegistry
    _router: QueueRouter
    _segments: SegmentTable
    _extensions: ExtensionTable
    _dispatcher: Dispatcher
    _warn: Callable[[str], None]
    _cycles: tuple[tuple[str, ...], ...] = ()

    def hello(self, connection: NodeConnection, hello: messages.Hello) -> None:
        """Refuse a process, or submit it to the state machine."""
        sender = self._nodes.participant(hello.node_id)
        problem = self._problem(connection, hello, sender)
        if problem is not None:
            connection.send(messages.Refused(problem))
            connection.close_when_sent()
            return
        assert sender is not None
        incarnation = hello.incarnation
        connection.node = sender.id
        staged = sender.replacement if isinstance(sender, LocalNode) else None
        if staged is not None and staged.incarnation == incarnation:
            staged.connection = connection
            self._dispatcher.notify()
            return
        sender.applicant = connection
        if isinstance(sender, LocalNode):
            self._dispatcher.emit(
                NodeConnected(sender.id, incarnation, connection.pid or hello.pid)
            )
        else:
            self._dispatcher.emit(LinkConnected(incarnation or 0))

    def _problem(
        self, connection: NodeConnection, hello: messages.Hello, sender: QueueUser | None
    ) -> str | None:
        """Return why a process is refused regardless of the state of the dataflow."""
        if connection.node is not None:
            return "this connection has sent Hello before"
        if hello.protocol != messages.PROTOCOL_VERSION:
            return (
                f"this runner supports protocol {messages.PROTOCOL_VERSION} with nodes, but the"
                f" package at {hello.package or 'an unknown place'} uses {hello.protocol} (version"
                f" {hello.version or 'unknown'}); install the same version of dora-node-api and"
                " dora-daemon"
            )
        if sender is None:
            dataflow = self._plan.name or self._plan.dataflow_id
            known = ", ".join(sorted(self._nodes)) or "none"
            return (
                f'node "{hello.node_id}" does not exist in dataflow {dataflow} on this machine (its'
                f" nodes: {known})"
            )
        if not isinstance(sender, LocalNode):
            return None
        spec = sender.spec
        self._check_package(hello)
        if hello.incarnation is None and not spec.is_dynamic:
            return (
                f'node "{spec.id}" is not dynamic: the dataflow starts it. To attach a process'
                " yourself, set `path: dynamic`"
            )
        if hello.incarnation is not None and spec.is_dynamic:
            return f'node "{spec.id}" is dynamic: create it with Node("{spec.id}")'
        if spec.is_dynamic and sender.applicant not in (None, connection):
            return f'another process is being attached as node "{spec.id}"'
        return None

    def _check_package(self, hello: messages.Hello) -> None:
        """Warn if a node uses another version of dora_node_api than this runner."""
        if hello.version and hello.version != dora_node_api.__version__:
            self._warn(
                f'node "{hello.node_id}" uses dora_node_api {hello.version} from {hello.package}'
                f" instead of {dora_node_api.__version__} of this runner"
            )

    def admit(self, node: LocalNode, incarnation: int, restarts: int) -> None:
        """Welcome a node: configuration, inputs, routes, parameters."""
        config = node_config(self._plan, node.spec, restarts, self._cycles)
        if self._admit(node, incarnation, config):
            for key, value in node.params.items():
                node.send(messages.SetParam(key, value))
            self._watch(node)

    def admit_link(self, incarnation: int) -> None:
        """Welcome the link as a node whose inputs are the streams that leave this machine."""
        config = messages.NodeConfig(
            dataflow_id=self._plan.dataflow_id,
            node_id=LINK_NODE,
            inputs=tuple(link_input(entry) for entry in self._registry.into(LINK_NODE)),
            machine_id=self._plan.machine_id,
        )
        link = self._nodes.link
        if self._admit(link, incarnation, config):
            link.send(messages.Go(time.monotonic_ns()))

    def _admit(self, who: QueueUser, incarnation: int, config: messages.NodeConfig) -> bool:
        connection, board = who.admit(incarnation), self._registry.board
        node = who if isinstance(who, LocalNode) else None
        try:
            if node is not None:
                self._router.create_inputs(node.spec)
        except QueueUnavailable as error:
            connection.send(messages.Refused(str(error)))
            self._warn(str(error))
            return False
        queues = self._registry.into(who.id)
        descriptors = [board.fd]
        for entry in queues:
            descriptors += entry.ends.for_consumer()
        segment, segment_size = -1, 0
        if node is not None and node.spec.outputs:
            with suppress(OSError):  # then the node creates a segment and registers it
                segment, segment_size = self._segments.create(incarnation)
                descriptors.append(segment)
        welcome = messages.Welcome(
            incarnation=incarnation,
            config=config,
            queues=tuple(entry.spec for entry in queues),
            board_size=board.size,
            segment_size=segment_size,
        )
        connection.send(welcome, descriptors)
        if segment >= 0:
            os.close(segment)
        if node is not None:
            node.restore()
        for entry in self._registry.written_by(who.id):
            send_route(who, entry)
        return True

    def refuse(self, node: str, message: str, *, cancelled: bool) -> None:
        """Refuse a process that sent Hello, or that waits at the start barrier."""
        found = self._nodes.participant(node)
        if found is None:
            return
        connection, found.applicant = found.applicant or found.connection, None
        if connection is not None:
            connection.send(messages.Refused(message, cancelled))

    def release(self, nodes: tuple[str, ...]) -> None:
        """Release nodes from the start barrier, those that read from others first."""
        sources = {node: self._sources(node) for node in nodes}
        for node, incarnations in sources.items():
            self._segments.send_first(self._nodes[node], incarnations)
        now = time.monotonic_ns()
        for node in sorted(nodes, key=lambda node: not sources[node]):
            if self._nodes.send(node, messages.Go(now)):
                # the wait at the barrier does not count for the health check
                self._nodes[node].connected_at = now / 1e9

    def _sources(self, node: str) -> set[int]:
        """Return the incarnations of the processes that a node reads from."""
        writers = {entry.writer for entry in self._registry.into(node)} - {node}
        found = (self._nodes.participant(writer) for writer in writers)
        open_ones = (one.connection for one in found if one is not None)
        numbers = {one.incarnation for one in open_ones if one is not None}
        return {number for number in numbers if number is not None}

    # --- the end ---------------------------------------------------------------------------------

    def exited(self, node: LocalNode, incarnation: int, status: Exit) -> None:
        """Emit the exit of a spawned node, after all its messages were processed."""
        drained = self._registry.queued(node.id) == 0
        connection = node.connection
        admitted = connection is not None and connection.incarnation == incarnation
        problem = None if status.ok or not admitted else self._registry.overwritten_by(node.id)
        self.process_ended(node, incarnation)
        self._registry.schedule_cleanup()
        self._dispatcher.emit(
            NodeExited(
                node.id,
                incarnation,
                status,
                drained=drained,
                stderr_tail=tuple(node.log.tail),
                explanation=overwritten(problem)
                if problem is not None
                else _explanation(node, admitted=admitted),
            )
        )

    def process_ended(self, who: QueueUser, incarnation: int) -> None:
        """Free the resources of a reaped process; call this before its end is emitted."""
        connection = who.connection
        if connection is not None and connection.incarnation == incarnation:
            # the message with the segment of its last sample may be unread
            connection.read_waiting()
            who.connection = None
            connection.close()
        self._extensions.forget(who.id)
        self._registry.consumer_died(who.id)
        self._registry.producer_died(who.id, incarnation)

    def remove(self, node: LocalNode) -> None:
        """Disconnect the process of a node that leaves the dataflow."""
        connection, node.connection = node.connection, None
        if connection is not None:
            _unwatch(connection)
            connection.send(messages.StopNode())
            connection.close_when_sent()

    def _watch(self, node: LocalNode) -> None:
        """End a dynamic node when its process exits."""
        connection = node.connection
        if connection is None or not connection.pid or not node.spec.is_dynamic:
            return
        descriptor = watch_process(connection.pid)
        if descriptor is not None:
            connection.exit_fd = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._detach, connection)

    def disconnected(self, connection: NodeConnection) -> None:
        """Forget a process that is not admitted, and end a dynamic node whose connection was
        closed, unless its exit will be detected.
        """
        sender = self._nodes.participant(connection.node or "")
        if sender is not None and sender.applicant is connection:
            sender.applicant = None
        if connection.exit_fd is None or connection.leaving:
            self._detach(connection)

    def _detach(self, connection: NodeConnection) -> None:
        _unwatch(connection)
        connection.read_waiting()
        connection.close()
        node, incarnation = self._nodes.get(connection.node or ""), connection.incarnation
        if node is None or incarnation is None or node.connection is not connection:
            return
        if node.spec.is_dynamic:
            self.process_ended(node, incarnation)
            self._dispatcher.emit(NodeDetached(node.id, incarnation))

    def close(self) -> None:
        for node in self._nodes.values():
            if node.connection is not None:
                _unwatch(node.connection)


def _explanation(node: LocalNode, *, admitted: bool) -> str | None:
    """Return why a process may have failed."""
    program = node.program
    not_connected = None if admitted else explain(program.facts)
    return not_connected or explain_import(
        program.facts, tuple(node.log.tail), program.cwd, program.variables
    )


def _unwatch(connection: NodeConnection) -> None:
    descriptor, connection.exit_fd = connection.exit_fd, None
    if descriptor is not None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
