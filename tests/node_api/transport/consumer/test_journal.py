"""What a link has taken from a queue outlives it until it is settled."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.queues import Edge, Registry, Segments, drain, number_of, numbers, send
from support.waiting import wait_until

from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.journal import LinkReceiver
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import RecordKind


class HeldEdge(Edge):
    """A queue into a link."""

    def __init__(
        self,
        board: Board,
        segments: Segments | Registry,
        *,
        policy: str = "backpressure",
        **options: int,
    ) -> None:
        super().__init__(board, segments, policy=policy, journal=True, **options)  # type: ignore[arg-type]

    def holder(self) -> LinkReceiver:
        return LinkReceiver(self.spec, self.for_consumer(), self.board, self.segments.open)


@contextmanager
def held(**options: Any) -> Iterator[HeldEdge]:
    board, segments = Board.create(1 << 20), Segments()
    edge = HeldEdge(board, segments, **options)
    try:
        yield edge
    finally:
        edge.close()
        board.close()
        segments.close()


def test_unsettled_messages_are_delivered_again() -> None:
    with held(bound=20) as edge:
        sender = edge.sender()
        for number in range(10):
            send(sender, number)
        first = edge.holder()
        taken = [first.receive() for _ in range(6)]
        assert [number_of(d.data) for d in taken if d is not None] == list(range(6))
        del taken[:2]
        first.settle(2)
        edge.keeper.consumer_died()
        assert edge.keeper.may_reference(6)

        second = edge.holder()
        again = second.take_over()
        assert [d.sequence for d in again] == [3, 4, 5, 6]
        assert numbers(again) == [2, 3, 4, 5]
        assert numbers(drain(second)) == [6, 7, 8, 9]
        assert second.settled == 2
        # Not void: the sender keeps what is neither settled nor waiting.
        assert sender.held_bytes()
        del again, taken
        second.settle(10)
        assert sender.held_bytes() == {}
        assert not edge.keeper.may_reference(10)
        third = edge.holder()
        assert third.take_over() == []
        for receiver in (first, second, third):
            receiver.close()
        sender.close()


def test_settled_messages_of_a_killed_link_are_free() -> None:
    with held(bound=20) as edge:
        sender = edge.sender()
        first = edge.holder()
        kept = []
        for number in range(200):
            send(sender, number)
            kept.append(first.receive())
            first.settle(number + 1)  # in its memory they are still held
        edge.keeper.consumer_died()
        second = edge.holder()
        assert second.take_over() == []
        for number in range(200, 400):
            send(sender, number)
            assert numbers(drain(second)) == [number]
            second.settle(number + 1)
        assert len(sender.held_bytes()) == 0
        kept.clear()
        for receiver in (first, second):
            receiver.close()
        sender.close()


def test_messages_beyond_the_hold_limit_are_held() -> None:
    """A copy would release the block, and a kill right then would lose the message."""
    with held(bound=20, hold_limit=1024) as edge:
        sender = edge.sender()
        for number in range(6):
            send(sender, number, 4096)
        first = edge.holder()
        taken = drain(first)
        assert not any(delivery.copied for delivery in taken)
        edge.keeper.consumer_died()
        second = edge.holder()
        again = second.take_over()
        assert numbers(again) == list(range(6))
        assert not any(delivery.copied for delivery in again)
        del taken, again
        for receiver in (first, second):
            receiver.close()
        sender.close()


def test_only_protected_messages_of_a_drop_oldest_queue_are_held() -> None:
    with held(bound=20, policy="drop_oldest") as edge:
        sender = edge.sender()
        for number in range(10):
            send(sender, number, protected=number % 3 == 1)
        first = edge.holder()
        taken = drain(first)
        assert [isinstance(d, Delivery) for d in taken] == [
            d.sequence in (1, 2, 5, 8) for d in taken
        ]
        del taken  # 1 maps the segment, and is not noted
        edge.keeper.consumer_died()

        second = edge.holder()
        assert second.take_over() == [], "they were released"
        for number in range(10, 20):
            send(sender, number, protected=number % 3 == 1)
        taken = drain(second)
        edge.keeper.consumer_died()
        assert edge.keeper.may_reference(20)

        third = edge.holder()
        assert (third.settled, third.last_image) == (0, 19)
        again = third.take_over()
        assert numbers(again) == [10, 13, 16, 19]
        send(sender, 20)
        assert [d.sequence for d in drain(third)] == [21]
        third.settle(21)
        del again, taken
        assert sender.held_bytes() == {}
        assert not edge.keeper.may_reference(21)
        for receiver in (first, second, third):
            receiver.close()
        sender.close()


@pytest.mark.parametrize("policy", ["backpressure", "drop_oldest"])
def test_lifecycle_records_are_held(policy: str) -> None:
    with held(policy=policy) as edge:
        edge.keeper.announce_failed("it broke")
        edge.keeper.announce_closed()
        first = edge.holder()
        assert [d.kind for d in drain(first)] == [RecordKind.NODE_FAILED, RecordKind.CLOSED]
        second = edge.holder()
        again = second.take_over()
        assert [d.kind for d in again] == [RecordKind.NODE_FAILED, RecordKind.CLOSED]
        assert again[0].error == "it broke"
        for receiver in (first, second):
            receiver.close()


def test_a_reused_block_is_skipped() -> None:
    """The kill came after the release and before the note was crossed out."""
    with held(bound=4) as edge:
        sender = edge.sender()
        send(sender, 0)
        first = edge.holder()
        drain(first)
        for number in range(1, 4):
            send(sender, number)
        second = edge.holder()
        assert second.take_over() == []
        assert numbers(drain(second)) == [1, 2, 3]
        for receiver in (first, second):
            receiver.close()
        sender.close()


def test_a_released_block_is_not_released_again() -> None:
    """Its slot and its block were another message's when the kill came."""
    with held(bound=4) as edge:
        sender = edge.sender()
        first = edge.holder()
        for number in range(2):
            send(sender, number)
            assert numbers(drain(first)) == [number]
        second = edge.holder()
        assert second.take_over() == []
        assert sender.held_bytes() == {}
        for receiver in (first, second):
            receiver.close()
        sender.close()


def test_a_late_release_frees_no_later_message() -> None:
    """A link that sends messages again holds them although the other machine has them already."""
    with held(bound=20) as edge:
        sender = edge.sender()
        first = edge.holder()
        for number in range(10):
            send(sender, number)
        late = drain(first)
        first.settle(10)
        assert sender.held_bytes() == {}  # the slots are free, without their release
        for number in range(10, 20):
            send(sender, number)
        late.clear()
        assert sender.held_bytes() != {}  # looks at all slots
        for number in range(20, 25):
            send(sender, number)
        taken = drain(first)
        assert numbers(taken) == list(range(10, 25))
        first.settle(25)
        taken.clear()
        assert sender.held_bytes() == {}
        first.close()
        sender.close()


def _link(edge: HeldEdge, done: int) -> None:
    """A pretended link process: writes each number that is new to ``done``, then settles it."""
    receiver = edge.holder()
    again = receiver.take_over()
    last = receiver.settled
    while True:
        for delivery in again:
            if delivery.sequence > last:
                os.write(done, b"%d\n" % number_of(delivery.data))
                last = delivery.sequence
            del delivery
        again.clear()
        if last % 3 == 0:
            receiver.settle(last)
        if (new := receiver.receive()) is not None:
            again.append(new)
        del new  # what is settled must have been dropped, or a kill right after leaves it taken


@pytest.mark.parametrize("policy", ["backpressure", "drop_oldest"])
@pytest.mark.parametrize("seed", range(3))
def test_a_link_is_killed_at_any_instruction(seed: int, policy: str) -> None:
    chance = random.Random(seed)
    board, segments = Board.create(4 << 20), Registry()
    edge = HeldEdge(board, segments, bound=50, policy=policy)
    sender = edge.sender(wait_for_room=lambda *_: True)
    read, write = os.pipe()
    came: list[int] = []
    buffer = b""
    os.set_blocking(read, False)

    def look() -> bool:
        nonlocal buffer
        try:
            buffer += os.read(read, 65536)
        except BlockingIOError:
            return False
        *lines, buffer = buffer.split(b"\n")
        came.extend(int(line) for line in lines)
        return True

    sent = 0
    try:
        for _ in range(12):
            pid = os.fork()
            if pid == 0:
                try:
                    _link(edge, write)
                finally:
                    os._exit(1)
            target = len(came) + chance.randrange(20, 200)

            def enough(target: int = target) -> bool:
                nonlocal sent
                while sent - len(set(came)) < 40:
                    send(sender, sent, protected=policy == "drop_oldest")
                    sent += 1
                look()
                return len(came) >= target

            wait_until(enough, what=lambda: f"{len(came)} of {sent}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            edge.keeper.consumer_died()
            while look():
                pass
        last = edge.holder()
        left = last.take_over() + drain(last)
        came += numbers(left)
        del left
        # Nothing is lost; what was passed on and not settled comes again, for the far side to drop.
        assert sorted(set(came)) == list(range(sent))
        last.settle(last._settled)
        assert sender.held_bytes() == {}
        last.close()
    finally:
        sender.close()
        edge.close()
        board.close()
        segments.close()
        os.close(read)
        os.close(write)
