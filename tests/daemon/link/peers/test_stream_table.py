"""One thread at a time reads a queue, and what is gone is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.queues import message
from support.runner.runs import open_descriptors
from support.waiting import wait_until

from dora_daemon.link import LINK_NODE
from dora_daemon.link.io.node_client import NodeClient
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.peers.stream_table import StreamTable
from dora_daemon.link.protocol.hello import EnteringStream
from dora_daemon.link.protocol.messages import Outgoing
from dora_daemon.link.protocol.priority import Priority
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.queues import QueueEntry, QueueRegistry
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_node_api.data import arrow
from dora_node_api.transport.consumer.journal import LinkReceiver
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import QueueEnds

KEY = ("b", "n", "o")


class SlowPeer:
    """A peer whose connection takes nothing until it is let."""

    link_id = 1
    their_link = 2

    def __init__(self) -> None:
        self.sending = threading.Event()
        self.takes = threading.Event()
        self.streams: dict[tuple[str, str], Any] = {}

    @property
    def sender(self) -> SlowPeer:
        return self

    def send_image(
        self, stream: int, sequence: int, previous: int, sent_ns: int, flags: int, image: bytes
    ) -> bool:
        return self.send(Priority.SMALL, image)

    def send_images(self, images: list[bytes], *, quick: bool) -> bool:
        return self.send(Priority.SMALL, b"".join(images))

    def send(self, priority: Priority, frame: bytes, *, more: bool = False) -> bool:
        self.sending.set()
        return self.takes.wait(20)

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        return most

    def set_streams(self, outgoing: dict[tuple[str, str], Any], incoming: object) -> None:
        self.streams = outgoing


class Side:
    """A runner's queues, and the link's streams with one queue to read."""

    def __init__(self, registry: QueueRegistry, segments: SegmentTable) -> None:
        self.registry = registry
        self.segments = segments
        self.kept, _ = registry.ensure(Edge("n", "o", LINK_NODE, "b n/o"), bound=8, journal=True)
        self.node = SimpleNamespace(receivers={}, removed=[], board=registry.board, forwarder=None)
        self.add_receiver()
        self.streams = StreamTable(
            cast(NodeClient, self.node),
            window_messages=8,
            window_bytes=1 << 20,
            send=lambda message: None,
            note=lambda sentence: None,
        )
        self.streams.want_outgoing([Outgoing(machine="b", node="n", output="o", queue=self.queue)])

    @property
    def queue(self) -> int:
        return self.kept.spec.queue

    def add_receiver(self) -> None:
        ends = [os.dup(descriptor) for descriptor in self.kept.ends.for_consumer()]
        self.node.receivers[self.queue] = LinkReceiver(
            self.kept.spec, QueueEnds.from_consumer_fds(ends), self.registry.board, self._segment
        )

    def remove_receiver(self) -> None:
        """What `NodeClient` does when the runner takes the queue away."""
        self.node.removed.append(self.node.receivers.pop(self.queue))

    def _segment(self, incarnation: int, number: int) -> tuple[int, int]:
        found = self.segments.find(incarnation, number)
        assert found is not None
        return os.dup(found[0]), found[1]

    def settle(self, **peers: SlowPeer) -> None:
        self.streams.settle(cast("dict[str, PeerLink]", peers))

    def resume(self) -> None:
        entering = EnteringStream(
            node="n", output="o", run_id="", accepted=0, stored=0, listening=True
        )
        self.streams.outgoing[KEY].resume(entering)


@pytest.fixture
def side() -> Iterator[Side]:
    segments = SegmentTable(LocalNodes())
    registry = QueueRegistry(Board.create(), segments)
    side = Side(registry, segments)
    yield side
    side.settle()
    wait_until(lambda: not side.streams.ending or side.streams.overdue, what="the thread to end")
    side.settle()
    for receiver in side.node.receivers.values():
        receiver.close()
    vars(side).clear()  # the board is closed with the last one who refers to it
    registry.close()
    segments.close()


def _send(side: Side, kept: QueueEntry) -> Sender:
    def register(number: int, descriptor: int, size: int) -> None:
        side.segments.add(1, number, os.dup(descriptor), size)

    sender = Sender(Pool(1 << 24, register), side.registry.board, 1)
    ends = [os.dup(descriptor) for descriptor in kept.ends.for_producer()]
    sender.add_route("o", kept.spec, QueueEnds.from_producer_fds(ends))
    sender.send("o", arrow.encode(message(0, 20)))
    return sender


def test_a_put_that_hangs_never_gives_a_queue_two_readers(side: Side) -> None:
    slow, again = SlowPeer(), SlowPeer()
    side.settle(b=slow)
    side.resume()
    sender = _send(side, side.kept)
    assert slow.sending.wait(10)
    side.settle()  # the peer was removed while a put hangs, which is abandoned
    side.settle(b=again)
    assert KEY not in side.streams.outgoing
    assert side.streams.ending
    assert not side.streams.overdue
    slow.takes.set()
    wait_until(lambda: side.streams.overdue, what="the first thread to end")
    side.settle(b=again)
    assert KEY in side.streams.outgoing
    assert not side.streams.ending
    sender.close()


def test_a_queue_without_a_stream_is_closed_when_it_goes(side: Side) -> None:
    before = open_descriptors()
    side.remove_receiver()
    side.settle()
    assert not side.node.removed
    assert open_descriptors() < before


def test_a_queue_is_closed_once_its_thread_has_ended(side: Side) -> None:
    slow = SlowPeer()
    side.settle(b=slow)
    side.resume()
    sender = _send(side, side.kept)
    assert slow.sending.wait(10)
    side.remove_receiver()
    side.settle(b=slow)
    # `want_outgoing` still names it: the runner's two sockets come in any order.
    side.streams.want_outgoing([])
    side.settle(b=slow)
    assert len(side.node.removed) == 1
    slow.takes.set()
    wait_until(lambda: side.streams.overdue, what="the thread to end")
    side.settle(b=slow)
    assert not side.node.removed
    sender.close()
