"""Shared memory segments of producers: a descriptor of each, and its size.

Consumers request a segment on first use, which may be after its producer has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress

from dora_daemon.runner.nodes.local_nodes import LocalNodes, QueueUser
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_node_api.protocol.messages import OpenSegment, SegmentFd, SegmentUnknown, SourceSegment
from dora_node_api.transport.producer.pool import FIRST_SEGMENT
from dora_node_api.transport.shared.memory import create_memory, read_only_descriptor


class SegmentTable:
    """Segments by incarnation of the producer and number."""

    def __init__(self, nodes: LocalNodes) -> None:
        self._nodes = nodes
        self._segments: dict[tuple[int, int], tuple[int, int]] = {}

    def create(self, incarnation: int) -> tuple[int, int]:
        """Make the first segment of a process; return a descriptor for it and the size.

        The process allocates the pages. Raises OSError.
        """
        with ExitStack() as undo:
            descriptor = create_memory("segment-0", FIRST_SEGMENT)
            undo.callback(os.close, descriptor)
            self.add(incarnation, 0, read_only_descriptor(descriptor), FIRST_SEGMENT)
            undo.pop_all()
        return descriptor, FIRST_SEGMENT

    def send_first(self, reader: QueueUser, incarnations: Iterable[int]) -> None:
        """Send the first segments of the sources of a process that waits for Go."""
        for incarnation in incarnations:
            if (segment := self._segments.get((incarnation, 0))) is not None:
                reader.send(SourceSegment(incarnation, 0, segment[1]), (segment[0],))

    def add(self, incarnation: int, number: int, descriptor: int, size: int) -> None:
        """Take ownership of a segment's descriptor."""
        self.remove(incarnation, number)
        self._segments[incarnation, number] = (descriptor, size)

    def find(
        self, incarnation: int, number: int, *, requester: NodeConnection | None = None
    ) -> tuple[int, int] | None:
        """Return descriptor and size of a segment; the table keeps the descriptor."""
        key = (incarnation, number)
        if key not in self._segments:
            # the message with the segment precedes the first sample in it, but may be unread
            self._nodes.read_waiting(incarnation, except_for=requester)
        return self._segments.get(key)

    def reply(self, connection: NodeConnection, request: OpenSegment) -> None:
        """Send the requested segment, or that it is unknown."""
        segment = self.find(request.incarnation, request.number, requester=connection)
        if segment is None:
            connection.send(SegmentUnknown(request.request))
        else:
            connection.send(SegmentFd(request.request, segment[1]), (segment[0],))

    def has_any(self, incarnation: int) -> bool:
        """Return whether a process has segments."""
        return any(incarnation == owner for owner, _ in self._segments)

    def remove(self, incarnation: int, number: int) -> None:
        """Close a segment; an unknown one is ignored."""
        entry = self._segments.pop((incarnation, number), None)
        if entry is not None:
            with suppress(OSError):
                os.close(entry[0])

    def remove_all(self, incarnation: int) -> None:
        """Close every segment of a process."""
        for owner, number in [key for key in self._segments if key[0] == incarnation]:
            self.remove(owner, number)

    def close(self) -> None:
        for owner, number in list(self._segments):
            self.remove(owner, number)
