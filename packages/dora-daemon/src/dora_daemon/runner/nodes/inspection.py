"""The socket for inspectors: processes that read outputs while somebody watches them.

It is there when the dataflow allows debug inspection. An inspector is no node: nothing waits for
it, its queues are drop_oldest, and they go when its connection does. The queues stay when a node
is restarted, so that a watch goes on with the next incarnation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dora_config.dataflow.sources import OutputSource
from dora_config.protocol.topics import MAX_TOPICS
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine.wiring import Edge
from dora_daemon.runner.nodes.queues import KeptQueue, hold_limit
from dora_daemon.runner.nodes.socket import NodeConnection, NodeServer
from dora_node_api.frozen import Frozen
from dora_node_api.protocol.frames import close_all
from dora_node_api.protocol.messages import (
    INSPECTOR,
    PROTOCOL_VERSION,
    AddInput,
    Hello,
    InputConfig,
    NodeConfig,
    OpenSegment,
    Refused,
    SegmentFd,
    SegmentUnknown,
    WatchOutput,
    Welcome,
)

if TYPE_CHECKING:
    from dora_daemon.runner.service import Runner

MOST_INSPECTORS = 16
SHORTEST_QUEUE, LONGEST_QUEUE = 8, 256
"""Messages that may wait for an inspector."""
BYTES_WAITING = 16 * 1024 * 1024
"""What waits is the sender's memory, and stays taken should the inspector be stopped."""


class Inspection:
    """What inspectors of this runner have asked for."""

    def __init__(self, runner: Runner, path: Path, complain: Callable[[str], None]) -> None:
        self._runner = runner
        self._complain = complain
        self._watched: dict[NodeConnection, list[KeptQueue]] = {}
        self._number = 0
        self._server = NodeServer(path, self)

    def complain(self, message: str) -> None:
        self._complain(f"inspection: {message}")

    def node_said(
        self, connection: NodeConnection, message: Frozen, descriptors: tuple[int, ...]
    ) -> None:
        """One message of an inspector; it has no descriptors to give."""
        close_all(descriptors)
        match message:
            case Hello():
                self._hello(connection, message)
            case WatchOutput() if connection in self._watched:
                self._watch(connection, message)
            case OpenSegment() if connection in self._watched:
                self._open_segment(connection, message)
            case _:
                self.complain(f"{type(message).__name__} was not expected here")

    def node_hung_up(self, connection: NodeConnection) -> None:
        """Its queues go. What a process that still lives has in hand may change under it."""
        for kept in self._watched.pop(connection, ()):
            if self._runner.book.get(kept.edge) is kept:
                kept.keeper.consumer_died()
                self._runner.desk.drop_queue(kept)

    def close(self) -> None:
        """The dataflow has ended; the queues go with the book."""
        self._watched.clear()
        self._server.close()

    def _hello(self, connection: NodeConnection, hello: Hello) -> None:
        problem = None
        if hello.protocol != PROTOCOL_VERSION:
            problem = (
                f"the runner of this dataflow speaks protocol {PROTOCOL_VERSION} with inspectors,"
                f" this daemon's speak {hello.protocol}; restart the dataflow"
            )
        elif len(self._watched) >= MOST_INSPECTORS:
            problem = f"{MOST_INSPECTORS} watch this dataflow on this machine already"
        if problem is not None:
            connection.send(Refused(problem))
            connection.close_when_sent()
            return
        connection.node = INSPECTOR
        self._watched.setdefault(connection, [])
        board = self._runner.book.board
        welcome = Welcome(
            incarnation=0,
            config=NodeConfig(dataflow_id=self._runner.plan.dataflow_id, node_id=INSPECTOR),
            board_size=board.size,
        )
        connection.send(welcome, [board.fd])

    def _watch(self, connection: NodeConnection, wanted: WatchOutput) -> None:
        """Make a queue and have whoever sends the output write into it, too."""
        watched = self._watched[connection]
        name = f"{wanted.node}/{wanted.output}"
        spec = self._runner.specs.get(wanted.node)
        if spec is None or wanted.output not in spec.outputs or len(watched) >= MAX_TOPICS:
            connection.send(Refused(f"there is no output {name} on this machine"))
            return
        source = OutputSource(node=wanted.node, output=wanted.output)
        self._number += 1
        edge = Edge(wanted.node, wanted.output, INSPECTOR, f"{self._number}:{name}")
        try:
            kept, _ = self._runner.book.ensure(
                edge,
                bound=self._queue_size(wanted),
                from_runner=self._runner.desk.runner_sends(source),
                hold_limit=hold_limit(spec, {}),
            )
            watched.append(kept)
            self._runner.desk.route(kept, name)
        except QueueUnavailable as error:
            connection.send(Refused(str(error)))
            return
        config = InputConfig(
            id=name, source=name, source_node=wanted.node, source_output=wanted.output
        )
        connection.send(AddInput(config, kept.spec), kept.ends.for_consumer())

    def _queue_size(self, wanted: WatchOutput) -> int:
        """Long for small messages, so that a flood of them need not be dropped by its sender."""
        book = self._runner.book
        known = [q.keeper.statistics() for q in book.out_of(wanted.node, (wanted.output,))]
        sent, size = sum(one.sent for one in known), sum(one.bytes_sent for one in known)
        fitting = BYTES_WAITING * sent // size if size else 0
        return min(max(fitting, SHORTEST_QUEUE), LONGEST_QUEUE)

    def _open_segment(self, connection: NodeConnection, wanted: OpenSegment) -> None:
        segment = self._runner.desk.find_segment(wanted.incarnation, wanted.number)
        if segment is None:
            connection.send(SegmentUnknown(wanted.request))
        else:
            connection.send(SegmentFd(wanted.request, segment[1]), (segment[0],))
