"""Forwarding of remote messages does not wait, whatever the size of a pipe."""

from __future__ import annotations

import fcntl

from support.queues import Edge, Segments, drain, numbers, send

from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.forwarding import Forwarder
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import PAGE, RECORD_SIZE
from dora_node_api.transport.shared.payload import Payload


def never(*_: object) -> bool:
    raise AssertionError("it waits")


def test_a_forwarder_does_not_wait_for_a_small_pipe() -> None:
    board, segments = Board.create(1 << 20), Segments()
    near = Edge(board, segments)
    far = Edge(board, segments, queue=2, bound=100, policy="backpressure", names=("n", "m"))
    # As where a user's pipes have used up `pipe-user-pages-soft`.
    fcntl.fcntl(far.ends.data_write, fcntl.F_SETPIPE_SZ, PAGE)
    room = PAGE // RECORD_SIZE
    forwarder = Forwarder(Pool(1 << 24, segments.register(9)), board, 9, wait_for_room=never)
    forwarder.add_route("n/out", far.spec, far.for_producer())
    sender, source, reader = near.sender(), near.receiver(), far.receiver()

    def forward(parts: Payload, data: memoryview, number: int) -> bool:
        hold = forwarder.allocate("n/out", parts.total)
        forwarder.fill_head(hold, parts)[:] = data
        if forwarder.forward("n/out", hold, parts.total, number, 1):
            return True
        held.append((hold, parts.total, number))
        return False

    held: list[tuple[Hold, int, int]] = []
    for number in range(1, room + 2):
        send(sender, number)
        delivery = source.receive()
        assert delivery is not None
        parts, data = delivery.take_apart()
        assert forward(parts, data, number) == (number <= room)
        del data, delivery
    assert numbers(drain(reader)) == list(range(1, room + 1))
    hold, total, number = held.pop()
    assert forwarder.forward("n/out", hold, total, number, 1, wait=True)
    (last,) = drain(reader)
    assert numbers([last]) == [room + 1]
    assert last.sent_ns == 1
    source.close()
    reader.close()
    sender.close()
    forwarder.close()
    near.close()
    far.close()
    board.close()
    segments.close()
