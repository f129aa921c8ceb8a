"""Queues of the streams that leave and enter this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dora_config.protocol.links import LinkPlan
from dora_config.protocol.runner import EdgeStatus
from dora_daemon.link import LINK_NODE
from dora_daemon.link.protocol.messages import Incoming, Outgoing, SetIncoming, SetOutgoing
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.link.log_reader import LogReader
from dora_daemon.runner.link.view import LinkView
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.streams import LOG_LINES, MachineStreams, streams_of
from dora_daemon.runner.nodes.edge_status import edge_status
from dora_daemon.runner.nodes.queues import QueueEntry
from dora_daemon.runner.nodes.services import NodeServices


class StreamQueues:
    """Keeps the queues of the link in step with its plan."""

    def __init__(self, services: NodeServices) -> None:
        self._registry = services.registry
        self._router = services.router
        self._segments = services.segments
        self._logs = services.logs
        self._log_readers: dict[Edge, LogReader] = {}
        self._readers_of_logs: dict[Edge, tuple[tuple[str, str], ...]] = {}
        """Node and input of each reader of a stream of log lines; they change while it is read."""
        self.streams = MachineStreams()

    def set_plan(self, plan: LinkPlan, on_change: Callable[[], None]) -> None:
        """Set the streams; call this before queues of nodes are created, and ``apply`` after."""
        self.streams = streams_of(plan)
        self._router.set_remote_nodes(self.streams.remote_nodes, on_change)

    def apply(self, ended: set[str]) -> tuple[Edge, ...]:
        """Create and drop queues; return the edges of outgoing streams. Raises QueueUnavailable.

        ``ended``: machines whose part of the dataflow has ended permanently.
        """
        wanted = [stream for stream in self.streams.outgoing if stream.machine not in ended]
        for entry in self._registry.into(LINK_NODE):
            stream = self.streams.outgoing_at(entry.edge)
            if stream not in wanted or (stream.backpressure and not entry.spec.backpressure):
                self._router.drop_outgoing(entry)
        for stream in wanted:
            self._router.create_outgoing(stream)
        self._read_logs()
        for entry in self._registry.all():
            if entry.edge.source in self.streams.remote_nodes and not entry.from_link:
                # its source was added on another machine
                entry.from_link = True
                self._router.route(entry, "")
        return tuple(stream.edge for stream in wanted)

    def _read_logs(self) -> None:
        wanted = {s.log_edge: s.readers for s in self.streams.incoming if s.logs}
        self._readers_of_logs = wanted
        for edge in [edge for edge in self._log_readers if edge not in wanted]:
            self._log_readers.pop(edge).close()
            if (entry := self._registry.get(edge)) is not None:
                self._router.drop(entry)
        for edge in [edge for edge in wanted if edge not in self._log_readers]:
            entry, _ = self._registry.ensure(edge, bound=LOG_LINES, from_link=True)
            self._router.route(entry, "")
            forward = partial(self._forward, edge)
            board = self._registry.board
            try:
                self._log_readers[edge] = LogReader(board, entry, self._segments, forward)
            except OSError as error:
                self._router.drop(entry)
                raise QueueUnavailable(f"cannot read edge {edge}: {error}") from error

    def _forward(self, edge: Edge, text: str) -> None:
        self._logs.forward(self._readers_of_logs[edge], text)

    def outgoing(self) -> SetOutgoing:
        """Return the message with all streams that leave this machine."""
        found = []
        for stream in self.streams.outgoing:
            entry = self._registry.get(stream.edge)
            if entry is not None:
                found.append(
                    Outgoing(
                        machine=stream.machine,
                        node=stream.node,
                        output=stream.output,
                        queue=entry.spec.queue,
                    )
                )
        return SetOutgoing(streams=tuple(found))

    def incoming(self) -> SetIncoming:
        """Return the message with all streams that enter this machine."""
        queues: dict[tuple[str, str], list[int]] = {}
        for entry in self._registry.written_by(LINK_NODE):
            edge = entry.edge
            queues.setdefault((edge.source, edge.output), []).append(entry.spec.queue)
        streams = [
            Incoming(
                machine=stream.machine,
                node=stream.node,
                output=stream.output,
                queues=tuple(queues.get((stream.node, stream.output), ())),
            )
            for stream in self.streams.incoming
        ]
        return SetIncoming(streams=tuple(streams))

    def status(self, entry: QueueEntry, view: LinkView) -> EdgeStatus:
        """Return the counters of a queue, with those of the link for an edge between machines."""
        status = edge_status(entry)
        edge = entry.edge
        if (stream := self.streams.outgoing_at(edge)) is not None:
            crossing = view.crossing(stream.machine, stream.node, stream.output, "out")
            return status.model_copy(update={"crossing": crossing})
        machine = self.streams.sources.get((edge.source, edge.output))
        if entry.from_link and machine is not None:
            crossing = view.crossing(machine, edge.source, edge.output, "in")
            return status.model_copy(update={"crossing": crossing})
        return status

    def close(self) -> None:
        for reader in self._log_readers.values():
            reader.close()
        self._log_readers.clear()
