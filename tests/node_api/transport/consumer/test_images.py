"""Small messages as images: what crosses is the block, and the block is free at once."""

from __future__ import annotations

import pytest
from support.queues import Edge, Segments, drain, message, number_of, numbers

from dora_node_api.data import arrow
from dora_node_api.transport.consumer.journal import (
    MAX_IMAGE,
    ImageDelivery,
    LinkReceiver,
)
from dora_node_api.transport.producer.forwarding import Forwarder
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.payload import BlockImage


def image_receiver(edge: Edge, board: Board, segments: Segments) -> LinkReceiver:
    return LinkReceiver(edge.spec, edge.for_consumer(), board, segments.open)


def block_image(image: bytes) -> BlockImage:
    """Split an image as a link does after it has checked the head."""
    head = layout.BLOCK_HEAD.unpack_from(image)
    end = layout.BLOCK_HEAD_SIZE + head[1] + head[2]
    view = memoryview(image)
    return BlockImage(view[:end], view[end:], head[6])


def forward(forwarder: Forwarder, image: bytes, number: int, sent_ns: int = 1) -> bool:
    split = block_image(image)
    return forwarder.forward("n/out", split, split.total, number, sent_ns)


def never(*_: object) -> bool:
    raise AssertionError("it waits")


@pytest.mark.parametrize("size", [20, 300, 20_000, 65_000])
def test_an_image_crosses_as_the_same_message(size: int) -> None:
    board, segments = Board.create(1 << 20), Segments()
    near = Edge(board, segments, journal=True)
    far = Edge(board, segments, queue=2, names=("n", "m"))
    forwarder = Forwarder(Pool(1 << 24, segments.register(9)), board, 9, wait_for_room=never)
    forwarder.add_route("n/out", far.spec, far.for_producer())
    sender, source, reader = near.sender(), image_receiver(near, board, segments), far.receiver()
    warm_up = 1  # the first message maps the segment and comes as a delivery
    for number in range(1, 6):
        sender.send("out", arrow.encode(message(number, size)))
        delivery = source.receive()
        assert delivery is not None
        if number <= warm_up:
            image = b"".join(delivery.image_parts())
        else:
            assert isinstance(delivery, ImageDelivery)
            image = delivery.image
        assert forward(forwarder, image, number)
        # A repetition reaches no queue twice.
        assert forward(forwarder, image, number)
        del delivery
    assert numbers(drain(reader)) == [1, 2, 3, 4, 5]
    for closing in (source, reader, sender, forwarder, near, far, board, segments):
        closing.close()


def test_the_only_message_that_waits_is_taken_and_forwarded() -> None:
    board, segments = Board.create(1 << 20), Segments()
    near = Edge(board, segments, journal=True)
    far = Edge(board, segments, queue=2, names=("n", "m"), bound=4)
    forwarder = Forwarder(Pool(1 << 24, segments.register(9)), board, 9, wait_for_room=never)
    forwarder.add_route("n/out", far.spec, far.for_producer())
    sender, source, reader = near.sender(), image_receiver(near, board, segments), far.receiver()
    assert source.read_only() is None

    def send(*sent: int) -> None:
        for number in sent:
            sender.send("out", arrow.encode(message(number, 300)))

    send(1)
    assert source.read_only() is None  # read, but its segment is not mapped yet
    first = source.receive()
    assert first is not None
    image = b"".join(first.image_parts())
    assert forward(forwarder, image, 1)
    assert numbers(drain(reader)) == [1]
    del first
    for number in range(2, 2000):
        send(number)
        taken = source.read_only()
        assert taken is not None
        assert source.pending() == 1
        source.settle_only()
        assert source.pending() == 0
        assert (taken[0], number_of(block_image(taken[3]).data)) == (number, number)
        assert forward(forwarder, taken[3], number, sent_ns=number)
        assert forward(forwarder, taken[3], number), "a repetition"
        (delivery,) = drain(reader)
        assert (number_of(delivery.data), delivery.sent_ns) == (number, number)
        del delivery
    assert forwarder.pool.reserved_bytes < 1 << 16
    assert forwarder.resume("n/out", 0) == 1999
    send(2000, 2001)
    assert source.read_only() is None, "two wait: they go together"
    assert [d.sequence for d in (source.receive(), source.receive()) if d] == [2000, 2001]
    for number in range(2000, 2004):
        assert forward(forwarder, image, number)
    assert forward(forwarder, image, 2004)
    assert forward(forwarder, image, 2005), "the oldest one is dropped"
    assert [d.sequence for d in drain(reader)] == [2002, 2003, 2004, 2005]
    assert forward(forwarder, image, 2006)
    for closing in (source, reader, sender, forwarder, near, far, board, segments):
        closing.close()


def test_a_protected_message_is_not_taken_alone() -> None:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, journal=True)
    sender, receiver = edge.sender(), image_receiver(edge, board, segments)
    sender.send("out", arrow.encode(message(1, 20)), layout.FLAG_PROTECTED)
    assert receiver.read_only() is None
    first = receiver.receive()
    assert first is not None
    assert first.flags == layout.FLAG_PROTECTED
    del first
    for closing in (receiver, sender, edge, board, segments):
        closing.close()


def test_the_block_of_an_image_is_free_at_once() -> None:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, journal=True)
    sender, receiver = edge.sender(), image_receiver(edge, board, segments)
    sender.send("out", arrow.encode(message(0, 5_000)))
    assert receiver.receive() is not None  # maps the segment
    kept = []
    for number in range(1, 2000):
        sender.send("out", arrow.encode(message(number, 5_000)))
        kept.append(receiver.receive())
    assert sender.pool.reserved_bytes < 20 * 8192
    assert all(isinstance(delivery, ImageDelivery) for delivery in kept)
    for closing in (receiver, sender, edge, board, segments):
        closing.close()


def test_large_messages_and_lifecycle_records_are_deliveries() -> None:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, journal=True)
    sender, receiver = edge.sender(), image_receiver(edge, board, segments)
    sender.send("out", arrow.encode(message(1, MAX_IMAGE)))
    sender.send("out", arrow.encode(message(2, MAX_IMAGE)))
    for number in (1, 2):
        delivery = receiver.receive()
        assert delivery is not None
        assert not isinstance(delivery, ImageDelivery)
        assert number_of(delivery.data) == number
        del delivery
    edge.keeper.announce_closed()
    closed = receiver.receive()
    assert closed is not None
    assert closed.kind is RecordKind.CLOSED
    for closing in (receiver, sender, edge, board, segments):
        closing.close()
