"""A process is killed at every step of a send and of a receive; others lose no other message.

A step is each store to memory or to an attribute and each call (so each system call) in the modules
that send and receive. Before each of them a child is killed, and the survivors are checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.queues import Edge, Registry, drain, message, number_of, numbers, send
from support.simulation.stepping import Steps, die

from dora_node_api.data import arrow
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED, RecordKind

MODULES = tuple(
    f"transport/{name}.py"
    for name in (
        *("producer/sending", "producer/route", "producer/pool"),
        *("consumer/receiving", "consumer/delivery"),
        *("shared/memory", "shared/queue"),
    )
)
BOUND = 3


@contextmanager
def world() -> Iterator[tuple[Board, Registry]]:
    registry = Registry()
    board = Board.create(4 << 20)
    try:
        yield board, registry
    finally:
        board.close()
        registry.close()


def in_child(work: Callable[[], None]) -> int:
    """Fork, run, and return the wait status; the child ends normally or is killed."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the child raised an exception"
    return status


def kill_at_each_step(scenario: Callable[[int], int]) -> int:
    """Run the scenario with the child dying at step 1, 2, 3, ... until it survives."""
    step = 0
    while True:
        step += 1
        if scenario(step) == 0:
            return step
        assert step < 20_000


@pytest.mark.parametrize("case", ["first", "evicting", "protected", "large", "flush"])
def test_kill_at_every_step_of_a_send(case: str) -> None:
    with world() as (board, registry):
        queue = 0

        def scenario(step: int) -> int:
            nonlocal queue
            queue += 1
            edge = Edge(board, registry, bound=BOUND, queue=queue)
            before = {"evicting": BOUND, "flush": 2, "protected": 1}.get(case, 0)
            size = 300_000 if case == "large" else 200

            def die_in_send() -> None:
                sender = edge.sender(queue * 10)
                for number in range(before):
                    send(sender, number)
                flags = {"protected": FLAG_PROTECTED, "flush": FLAG_FLUSH}.get(case, 0)
                payload = arrow.encode(message(before, size))
                Steps(MODULES, step, die).run(lambda: sender.send("out", payload, flags))

            receiver = edge.receiver()
            held: list[Delivery] = []
            status = in_child(die_in_send)
            survivors(edge, receiver, before, held, incarnation=queue * 10 + 1)
            receiver.close()
            edge.keeper.consumer_died()
            edge.close()
            return status

        steps = kill_at_each_step(scenario)
    assert steps > 60


@pytest.mark.parametrize("policy", ["drop_oldest", "backpressure"])
@pytest.mark.parametrize("case", ["plain", "protected"])
def test_a_message_in_hands_is_queued_at_every_step(policy: str, case: str) -> None:
    """An end may stop between its system call and its store: such a message is not dropped."""
    with world() as (board, registry):
        edge = Edge(board, registry, bound=8, queue=1, policy=policy)
        sender, receiver = edge.sender(1), edge.receiver()
        seen: list[tuple[int, int, int]] = []

        def look() -> None:
            counted = edge.keeper.statistics()
            seen.append((counted.dropped, counted.sent, counted.received + counted.queued))

        def exchange() -> None:
            for number in range(3):
                send(sender, number, protected=case == "protected" and number == 1)
            assert numbers(drain(receiver)) == [0, 1, 2]

        steps = 0
        while len(seen) == steps:
            steps += 1
            Steps(MODULES, steps, look).run(exchange)
        receiver.close()
        edge.keeper.consumer_died()
        sender.close()
        edge.keeper.producer_died()
        assert edge.keeper.statistics().dropped == 0
        edge.close()
    assert steps > 100
    assert {dropped for dropped, _, _ in seen} == {0}
    assert all(sent == rest for _, sent, rest in seen)


def survivors(edge: Edge, receiver, before: int, held: list[Delivery], incarnation: int) -> None:  # type: ignore[no-untyped-def]
    """Check the next incarnation of the producer, and the consumer."""
    edge.keeper.producer_died()
    edge.keeper.announce_restarted()
    sender = edge.sender(incarnation)
    for number in range(100, 102):
        assert send(sender, number) == 1
    got = drain(receiver)
    kinds = [d.kind for d in got]
    found = numbers([d for d in got if d.kind is RecordKind.DATA])
    assert kinds.count(RecordKind.NODE_RESTARTED) == 1
    assert found == sorted(found)
    assert found[-2:] == [100, 101]
    assert set(found) <= {*range(before + 1), 100, 101}
    assert len(found) <= BOUND + 1  # one more, when the last one was protected
    # The lifecycle record is between the messages of the two incarnations.
    news = kinds.index(RecordKind.NODE_RESTARTED)
    assert all(number_of(d.data) < 100 for d in got[:news])
    assert all(number_of(d.data) >= 100 for d in got[news + 1 :])
    for number in range(200, 220):
        send(sender, number)
    assert numbers(drain(receiver)) == [217, 218, 219]
    seen = edge.keeper.statistics()
    assert seen.received == len(got) + 3
    assert seen.queued == 0
    assert seen.sent == seen.received + seen.dropped
    assert 17 <= seen.dropped <= 17 + before + 1
    del got
    assert sender.held_bytes() == {}
    assert len(next(iter(sender._table)).inherited) <= 1
    sender.close()
    edge.keeper.announce_closed()
    last = receiver.receive()
    assert last is not None
    assert last.kind is RecordKind.CLOSED
    assert receiver.receive() is None


@pytest.mark.parametrize("case", ["first", "second", "held", "urgent", "news", "backpressure"])
def test_kill_at_every_step_of_a_receive(case: str) -> None:
    before = {"second": 1, "held": 2, "news": 3}.get(case, 0)
    with world() as (board, registry):
        queue = 0

        def scenario(step: int) -> int:
            nonlocal queue
            queue += 1
            policy = "backpressure" if case == "backpressure" else "drop_oldest"
            edge = Edge(board, registry, bound=BOUND, queue=queue, policy=policy)
            sender = edge.sender(queue * 10, wait_for_room=lambda *_: False)
            send(sender, 0)
            send(sender, 1, protected=case in ("urgent", "held"))
            send(sender, 2)
            if case == "news":
                edge.keeper.announce_restarted()

            def die_in_receive() -> None:
                receiver = edge.receiver()
                kept = []
                for _ in range(before):
                    kept.append(receiver.receive())

                def take() -> None:
                    delivery = receiver.receive()
                    assert delivery is not None
                    delivery.data[:4].tobytes()
                    del delivery

                Steps(MODULES, step, die).run(take)

            status = in_child(die_in_receive)
            edge.keeper.consumer_died()
            after_consumer(edge, sender, most_taken=before + 1)
            sender.close()
            edge.close()
            return status

        steps = kill_at_each_step(scenario)
    assert steps > 30


def after_consumer(edge: Edge, sender, most_taken: int) -> None:  # type: ignore[no-untyped-def]
    """The next incarnation of the consumer reads the rest, and all memory is freed."""
    receiver = edge.receiver()
    got = drain(receiver)
    left = numbers([d for d in got if d.kind is RecordKind.DATA])
    assert left == sorted(left)
    assert set(left) <= {0, 1, 2}
    assert 3 - len(left) <= most_taken
    for number in (10, 11):
        assert send(sender, number) == 1
    more = drain(receiver)
    assert numbers(more) == [10, 11]
    seen = edge.keeper.statistics()
    assert seen.queued == 0
    assert seen.sent == seen.received + seen.dropped
    assert seen.broken == 0
    assert seen.received >= len(got) + 2
    assert seen.dropped <= 1  # read by the dead one, but not counted as received
    del got, more
    assert sender.held_bytes() == {}
    receiver.close()
