"""A signal handler raises at every point of a send and of a receive at which one can run.

The same process goes on afterwards. What was read is handed out or released, what was sent arrives
once or not at all, and no memory stays behind.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.queues import Edge, Segments, drain, message, numbers, send
from support.stepping import Raised, Steps, raise_here

from dora_node_api.data import arrow
from dora_node_api.transport import Board, Receiver, Sender

MODULES = ("dora_node_api/transport/", "dora_node_api/data/arrow.py")
BOUND = 3


@contextmanager
def world(policy: str = "drop_oldest") -> Iterator[tuple[Edge, Sender, Receiver]]:
    segments = Segments()
    board = Board.create(1 << 20)
    edge = Edge(board, segments, bound=BOUND, policy=policy)
    sender, receiver = edge.sender(wait_for_room=lambda *_: False), edge.receiver()
    try:
        yield edge, sender, receiver
    finally:
        receiver.close()
        sender.close()
        edge.keeper.consumer_died()
        edge.close()
        board.close()
        segments.close()


def memory_descriptors() -> set[int]:
    """Descriptors of shared memory in this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "memfd:dora-" in os.readlink(f"/proc/self/fd/{name}"):
                found.add(int(name))
    return found


def at_each_point(attempt: Callable[[Steps], None]) -> int:
    """Call with a stepper that raises at point 1, 2, 3, ... until nothing was raised."""
    step = 0
    gc.collect()
    gc.freeze()  # so that collecting after each attempt is quick
    while True:
        step += 1
        steps = Steps(MODULES, step, raise_here, checks_only=True)
        before = memory_descriptors()
        attempt(steps)
        gc.collect()
        lost = memory_descriptors() - before
        # A number that a system call returned cannot be saved when the exception comes before it
        # is stored; that is so for one call each time a segment is made or opened.
        if steps.at.startswith(("memory.py", "pool.py", "receiving.py")):
            assert len(lost) <= 1
            for fd in lost:
                os.close(fd)
        if steps.count < step:
            gc.unfreeze()
            return step


@pytest.mark.parametrize(
    "case", ["plain", "evicting", "protected", "large", "flush", "full", "small_pool"]
)
def test_a_handler_raises_at_every_point_of_a_send(case: str) -> None:
    policy = "backpressure" if case == "full" else "drop_oldest"

    def attempt(steps: Steps) -> None:
        with world(policy) as (edge, sender, receiver):
            before = {"evicting": BOUND, "flush": 2, "full": BOUND, "small_pool": 2}.get(case, 0)
            size = 300_000 if case == "large" else 100
            if case == "small_pool":
                sender.pool.cap_bytes = 1 << 20
                size = 400_000
            for number in range(before):
                send(sender, number, size)
            options = {"protected": case == "protected", "flush": case == "flush"}
            payload = arrow.encode(message(before, size))
            interrupted = False
            try:
                steps.run(lambda: sender.send("out", payload, **options))
            except Raised:
                interrupted = True
            found = numbers(drain(receiver))
            assert found == sorted(set(found)), steps.at
            assert set(found) <= set(range(before + 1)), steps.at
            if not interrupted and case != "full":
                assert found[-1] == before
            for number in range(50, 60):
                if case != "full" or number < 50 + BOUND:
                    assert send(sender, number, size) == 1
            later = drain(receiver)
            expected = {"small_pool": 2, "full": BOUND}.get(case, BOUND)
            assert len(later) == expected, steps.at
            assert numbers(later)[-1] == (49 + BOUND if case == "full" else 59), steps.at
            del later
            seen = edge.keeper.statistics()
            assert seen.sent == seen.received + seen.dropped, steps.at
            assert seen.received == len(found) + expected, steps.at
            gc.collect()
            assert sender.held_bytes() == {}, steps.at
            assert sender.pool.free_bytes() == sender.pool.reserved_bytes, steps.at
            free = [block for home in sender.pool.classes.values() for block in home.free]
            assert len(free) == len(set(map(id, free))), steps.at

    assert at_each_point(attempt) > 10


@pytest.mark.parametrize("case", ["plain", "urgent", "held", "overtaken", "copy", "backpressure"])
def test_a_handler_raises_at_every_point_of_a_receive(case: str) -> None:
    policy = "backpressure" if case == "backpressure" else "drop_oldest"

    def attempt(steps: Steps) -> None:
        with world(policy) as (edge, sender, receiver):
            receiver._most_held = 0 if case == "copy" else receiver._most_held
            keep = []
            send(sender, 0)
            send(sender, 1)
            if case == "copy":
                keep = [receiver.receive(), receiver.receive()]
            send(sender, 2, protected=case in ("urgent", "held", "overtaken"))
            send(sender, 3)
            if case in ("held", "overtaken"):
                keep = [receiver.receive(), receiver.receive(), receiver.receive()]
                assert receiver.holds_record
            if case == "overtaken":
                for number in range(4, 4 + BOUND):
                    send(sender, number)
            expected = {
                "held": [3],
                "overtaken": [4, 5, 6],
                "copy": [2, 3],
                "backpressure": [0, 1, 2],
                "plain": [1, 2, 3],
            }.get(case, [0, 1, 2, 3])
            got = []

            def take() -> None:
                delivery = receiver.receive()
                assert delivery is not None
                got.append(delivery)

            with contextlib.suppress(Raised):
                steps.run(take)
            found = numbers(got) + numbers(drain(receiver))
            # Raised on the very way back to the caller: released, and counted as handed out.
            gone = [n for n in expected if n not in found]
            assert gone in ([], expected[:1]), steps.at
            assert found == [n for n in expected if n not in gone], steps.at
            handed = edge.keeper.statistics().received
            assert handed == len(found) + len(gone) + len(keep), steps.at
            del keep
            got.clear()
            seen = edge.keeper.statistics()
            assert seen.sent == seen.received + seen.dropped, steps.at
            assert sender.held_bytes() == {}, steps.at
            assert sender.pool.free_bytes() == sender.pool.reserved_bytes, steps.at
            assert receiver._account.held == 0, steps.at
            assert receiver._account.held_bytes == 0, steps.at

    assert at_each_point(attempt) > 10
