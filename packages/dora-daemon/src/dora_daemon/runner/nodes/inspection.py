"""Inspectors and recorders: processes that read outputs beside the nodes.

Inspectors are refused unless the dataflow allows debug inspection. No node waits for a reader here:
its queues are drop_oldest and end with its connection. They stay when a node restarts, so that the
reader continues with the next incarnation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from dora_config.dataflow.expand import expand_dataflow
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.queues import QueueEntry, QueueRegistry, hold_limit
from dora_daemon.runner.nodes.routing import QueueRouter
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_node_api.protocol import messages

MAX_INSPECTORS = 16
"""Inspectors and recorders of a dataflow on this machine."""
MIN_QUEUE, MAX_QUEUE = 8, 256
"""Messages that may be queued for an inspector."""
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""Bytes queued for an inspector: they occupy memory of the sender, even if it is suspended."""
RECORDER_QUEUE = 4096
"""Messages that may be queued for a recorder, so that bursts are not lost. A sender without memory
drops the oldest of them."""
FINISH_SECONDS = 10.0
"""Seconds for recorders to read queued messages when the dataflow has ended."""


@dataclass(eq=False)
class OutputReaders:
    """Connected inspectors and recorders, and their queues."""

    _plan: RunPlan
    _nodes: LocalNodes
    _registry: QueueRegistry
    _router: QueueRouter
    _queues: dict[NodeConnection, list[QueueEntry]] = field(default_factory=dict, init=False)
    _recorders_left: anyio.Event = field(default_factory=anyio.Event, init=False)
    _number: int = field(default=0, init=False)

    def __contains__(self, connection: NodeConnection) -> bool:
        return connection in self._queues

    def disconnected(self, connection: NodeConnection) -> None:
        """Drop the queues of an inspector. A sample that it still reads may be overwritten."""
        for entry in self._queues.pop(connection, ()):
            if self._registry.get(entry.edge) is entry:
                entry.keeper.consumer_died()
                self._router.drop(entry)
        if not self._recorders():
            self._recorders_left.set()

    async def finish(self) -> None:
        """Wait until recorders have read queued messages; called when all nodes have ended."""
        self._recorders_left = anyio.Event()
        for connection in (recorders := self._recorders()):
            connection.send(messages.StopNode())
        if recorders:
            with anyio.move_on_after(FINISH_SECONDS):
                await self._recorders_left.wait()

    def _recorders(self) -> list[NodeConnection]:
        return [connection for connection in self._queues if connection.node == messages.RECORDER]

    def hello(self, connection: NodeConnection, hello: messages.Hello) -> None:
        """Welcome or refuse an inspector or a recorder."""
        problem = None
        if hello.protocol != messages.PROTOCOL_VERSION:
            problem = (
                f"the runner of this dataflow supports protocol {messages.PROTOCOL_VERSION} with"
                f" inspectors, those of this daemon use {hello.protocol}; restart the dataflow"
            )
        elif hello.node_id != messages.RECORDER and not self._plan.resolved.debug_inspection:
            problem = (
                "the dataflow was started without inspection; restart the dataflow with `--debug`"
            )
        elif len(self._queues) >= MAX_INSPECTORS:
            problem = f"at most {MAX_INSPECTORS} inspectors per dataflow on one machine"
        if problem is not None:
            connection.send(messages.Refused(problem))
            connection.close_when_sent()
            return
        connection.node = hello.node_id
        self._queues.setdefault(connection, [])
        board = self._registry.board
        welcome = messages.Welcome(
            incarnation=0,
            config=messages.NodeConfig(dataflow_id=self._plan.dataflow_id, node_id=connection.node),
            board_size=board.size,
        )
        connection.send(welcome, [board.fd])
        if connection.node == messages.RECORDER:
            connection.send(self._recording_source())

    def _recording_source(self) -> messages.RecordingSource:
        specs = tuple(self._nodes.specs())
        current = self._plan.resolved.model_copy(update={"nodes": specs})
        return messages.RecordingSource(
            name=self._plan.name,
            working_dir=self._plan.working_dir,
            machine_id=self._plan.machine_id,
            outputs=tuple(f"{spec.id}/{output}" for spec in specs for output in spec.outputs),
            descriptor=expand_dataflow(current),
        )

    def watch(self, connection: NodeConnection, wanted: messages.WatchOutput) -> None:
        """Create a queue for the inspector and add it to the producer's routes."""
        queues = self._queues[connection]
        name = f"{wanted.node}/{wanted.output}"
        node = self._nodes.get(wanted.node)
        recording = connection.node == messages.RECORDER
        if node is None or wanted.output not in node.spec.outputs:
            connection.send(messages.Refused(f"output {name} does not exist on this machine"))
            return
        source = OutputSource(node=wanted.node, output=wanted.output)
        self._number += 1
        edge = Edge(wanted.node, wanted.output, messages.INSPECTOR, f"{self._number}:{name}")
        try:
            entry, _ = self._registry.ensure(
                edge,
                bound=RECORDER_QUEUE if recording else self._queue_size(wanted),
                writer=self._router.writer_of(source),
                hold_limit=hold_limit(node.spec, {}),
            )
            queues.append(entry)
            self._router.route(entry)
        except QueueUnavailable as error:
            connection.send(messages.Refused(str(error)))
            return
        config = messages.InputConfig(id=name, source=name, source_node=wanted.node)
        connection.send(messages.AddInput(config, entry.spec), entry.ends.for_consumer())

    def _queue_size(self, wanted: messages.WatchOutput) -> int:
        """Return a longer queue for smaller messages, so that bursts of them are not dropped."""
        entries = self._registry.out_of(wanted.node, (wanted.output,))
        known = [entry.keeper.statistics() for entry in entries]
        sent, size = sum(one.sent for one in known), sum(one.bytes_sent for one in known)
        fitting = MAX_QUEUED_BYTES * sent // size if size else 0
        return min(max(fitting, MIN_QUEUE), MAX_QUEUE)
