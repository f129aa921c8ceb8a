"""The transport alone, two real processes: round trips and one-way throughput.

    python benchmarks/transport_micro.py [--quick]

Prints medians in microseconds and messages a second. No runner and no Node are involved; the
processes are forked from this one, which plays the runner.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from dora_node_api.data import arrow
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import create_queue
from dora_node_api.transport.shared.specs import QueueSpec

SIZES = (8, 512, 4096, 65536, 1 << 20, 4 << 20, 16 << 20, 40 << 20)
CAP = 1 << 30
MEMORY: dict[str, int] = {}


class Wire:
    """One queue and its producer's segments, reachable from both forked ends."""

    def __init__(self, board: Board, number: int, bound: int, policy: str = "drop_oldest") -> None:
        area, slots = board.allocate_edge(bound)
        self.board = board
        self.spec = QueueSpec(
            number,
            f"p{number}",
            "out",
            f"c{number}",
            "in",
            QueuePolicy(policy),
            bound,
            area,
            slots,
            CAP,
        )
        self.ends = create_queue(self.spec)
        self.incarnation = number

    def sender(self) -> Sender:
        owner = os.getpid()

        def register(segment: int, fd: int, size: int) -> None:
            # The other end opens it by the number of a copy that stays open here.
            MEMORY[f"{self.incarnation}/{segment}"] = os.dup(fd)
            path = f"{DIRECTORY}/{self.incarnation}-{segment}"
            with open(path + ".new", "w") as file:
                file.write(f"{owner} {MEMORY[f'{self.incarnation}/{segment}']} {size}")
            os.replace(path + ".new", path)  # noqa: PTH105

        sender = Sender(Pool(CAP, register), self.board, self.incarnation)
        sender.add_route("out", self.spec, self.ends)
        return sender

    def receiver(self) -> Receiver:
        return Receiver(self.spec, self.ends, self.board, open_segment)


DIRECTORY = ""


def open_segment(incarnation: int, number: int) -> tuple[int, int]:
    with open(f"{DIRECTORY}/{incarnation}-{number}") as file:
        owner, fd, size = map(int, file.read().split())
    return os.open(f"/proc/{owner}/fd/{fd}", os.O_RDONLY), size


@contextmanager
def child(work: Callable[[], None]) -> Iterator[None]:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.waitpid(pid, 0)


def next_message(receiver: Receiver, waiter: Waiter) -> pa.Array:
    while True:
        delivery = receiver.receive()
        if delivery is not None:
            return delivery.value
        waiter.wait(5)


def round_trips(size: int, count: int) -> list[float]:
    board = Board.create()
    there, back = Wire(board, 1, 10), Wire(board, 2, 10)

    def echo() -> None:
        receiver, sender, waiter = there.receiver(), back.sender(), Waiter()
        waiter.add(receiver)
        for _ in range(count):
            sender.send("out", arrow.encode(next_message(receiver, waiter)))
        time.sleep(0.05)

    took: list[float] = []
    with child(echo):
        sender, receiver, waiter = there.sender(), back.receiver(), Waiter()
        waiter.add(receiver)
        payload = pa.array(np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8))
        for _ in range(count):
            start = time.perf_counter()
            sender.send("out", arrow.encode(payload))
            answer = next_message(receiver, waiter)
            took.append(time.perf_counter() - start)
            assert len(answer) == size
            del answer
    return took[count // 10 :]


def one_way(size: int, seconds: float) -> tuple[float, float, float]:
    """Messages a second sent, received, and the part that was dropped."""
    board = Board.create()
    wire = Wire(board, 1, 1000)

    def consume() -> None:
        receiver, waiter = wire.receiver(), Waiter()
        waiter.add(receiver)
        while True:
            delivery = receiver.receive()
            if delivery is None:
                if not waiter.wait(0.3):
                    return
            else:
                _ = delivery.value

    with child(consume):
        sender = wire.sender()
        payload = pa.array(np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8))
        start = time.perf_counter()
        sent = 0
        while time.perf_counter() - start < seconds:
            for _ in range(10):
                sender.send("out", arrow.encode(payload))
            sent += 10
        took = time.perf_counter() - start
    from dora_node_api.transport.shared.queue_keeper import QueueKeeper

    seen = QueueKeeper(board, wire.spec, wire.ends).statistics()
    return sent / took, seen.received / took, seen.dropped / max(seen.sent, 1)


def main() -> None:
    global DIRECTORY
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("trips", "way"))
    arguments = parser.parse_args()
    for size in SIZES if arguments.only != "way" else ():
        count = max(60, min(4000, (1 << 30) // (size + 1) // 4))
        if arguments.quick:
            count = max(30, count // 10)
        with tempfile.TemporaryDirectory() as DIRECTORY:
            took = round_trips(size, count)
        deciles = statistics.quantiles(took, n=100)
        print(
            f"round trip {size:>9} B: median {statistics.median(took) * 1e6:8.1f} us, "
            f"p99 {deciles[98] * 1e6:8.1f} us"
        )
    for size in (8, 4096, 65536, 1 << 20, 8 << 20) if arguments.only != "trips" else ():
        with tempfile.TemporaryDirectory() as DIRECTORY:
            sent, received, dropped = one_way(size, 0.3 if arguments.quick else 1.0)
        print(
            f"one way    {size:>9} B: sent {sent:9.0f}/s, received {received:9.0f}/s "
            f"({received * size / 1e9:5.1f} GB/s), dropped {dropped:6.2%}"
        )


if __name__ == "__main__":
    main()
