"""Queues for tests without a runner: edges, a registry of segments, checked messages."""

from __future__ import annotations

import os
import random
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

from dora_node_api.data import arrow
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.journal import LinkReceiver
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED
from dora_node_api.transport.shared.queue import QueueEnds, create_queue
from dora_node_api.transport.shared.queue_keeper import QueueKeeper
from dora_node_api.transport.shared.specs import QueueSpec

_PATTERN = random.Random(20240607).randbytes(1 << 20)
_HEAD = struct.Struct("=QII")


def message(number: int, size: int) -> bytes:
    """Return a numbered message with a checksum over varied contents."""
    start = number * 7919 % 4096
    body = _PATTERN[start : start + max(size - _HEAD.size, 0)]
    return _HEAD.pack(number, len(body), zlib.crc32(body)) + body


def number_of(data: bytes | memoryview) -> int:
    """Return the number of a message, after a check of every byte."""
    number, size, checksum = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    assert len(body) == size, f"message {number} has {len(body)} bytes of {size}"
    assert zlib.crc32(body) == checksum, f"wrong bytes in message {number}"
    return int(number)


class Segments:
    """Segments within one process."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], tuple[int, int]] = {}

    def register(self, incarnation: int) -> Callable[[int, int, int], None]:
        def register(number: int, fd: int, size: int) -> None:
            self.known[incarnation, number] = (os.dup(fd), size)

        return register

    def open(self, incarnation: int, number: int) -> tuple[int, int]:
        fd, size = self.known[incarnation, number]
        return os.dup(fd), size

    def close(self) -> None:
        for fd, _ in self.known.values():
            os.close(fd)
        self.known = {}


class Registry:
    """Segments across processes: a forked process that keeps every descriptor it is given."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="q")
        self.path = f"{self._directory.name}/s"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.path)
        listener.listen(64)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _serve(listener)
            finally:
                os._exit(1)
        listener.close()

    def _call(self, text: bytes, fds: list[int]) -> tuple[bytes, list[int]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(self.path)
            socket.send_fds(connection, [text], fds)
            answer, got, _, _ = socket.recv_fds(connection, 100, 1)
            return answer, got

    def register(self, incarnation: int) -> Callable[[int, int, int], None]:
        def register(number: int, fd: int, size: int) -> None:
            self._call(b"put %d %d %d" % (incarnation, number, size), [fd])

        return register

    def open(self, incarnation: int, number: int) -> tuple[int, int]:
        answer, fds = self._call(b"get %d %d" % (incarnation, number), [])
        if not fds:
            raise LookupError(f"unknown segment {incarnation}/{number}")
        return fds[0], int(answer)

    def close(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        self._directory.cleanup()


def _serve(listener: socket.socket) -> None:
    known: dict[tuple[int, int], tuple[int, int]] = {}
    while True:
        connection, _ = listener.accept()
        with connection:
            text, fds, _, _ = socket.recv_fds(connection, 100, 1)
            words = text.split()
            try:
                if words and words[0] == b"put":
                    known[int(words[1]), int(words[2])] = (fds[0], int(words[3]))
                    connection.send(b"ok")
                elif words:
                    found = known.get((int(words[1]), int(words[2])))
                    if found is None:
                        connection.send(b"no")
                    else:
                        socket.send_fds(connection, [b"%d" % found[1]], [found[0]])
            except OSError:
                pass  # the client was killed


def free_bytes(pool: Pool) -> int:
    """Return the bytes of free blocks that have pages."""
    return sum(len(home.free) * home.size for home in pool.classes.values())


class Edge:
    """One queue on a board; creates senders and receivers."""

    def __init__(
        self,
        board: Board,
        segments: Segments | Registry,
        *,
        bound: int = 10,
        policy: str = "drop_oldest",
        queue: int = 1,
        hold_limit: int = 1 << 30,
        names: tuple[str, str] = ("camera", "plot"),
        journal: bool = False,
        remote: bool = False,
    ) -> None:
        area, slots = board.allocate_edge(bound, journal=journal)
        producer, consumer = names
        self.board = board
        self.segments = segments
        rule = QueuePolicy(policy)
        self.spec = QueueSpec(
            queue, producer, "out", consumer, "in", rule, bound, area, slots, hold_limit, journal,
            remote,
        )  # fmt: skip
        self.ends = create_queue(self.spec)
        self.keeper = QueueKeeper(board, self.spec, self.ends)

    def for_producer(self) -> QueueEnds:
        return QueueEnds.from_producer_fds([os.dup(fd) for fd in self.ends.for_producer()])

    def for_consumer(self) -> QueueEnds:
        return QueueEnds.from_consumer_fds([os.dup(fd) for fd in self.ends.for_consumer()])

    def sender(self, incarnation: int = 1, *, cap: int = 64 << 20, **options: Any) -> Sender:
        pool = Pool(cap, self.segments.register(incarnation))
        sender = Sender(pool, self.board, incarnation, **options)
        sender.add_route("out", self.spec, self.for_producer())
        return sender

    def receiver(self, **options: Any) -> Receiver:
        kind = LinkReceiver if self.spec.journal else Receiver
        return kind(self.spec, self.for_consumer(), self.board, self.segments.open, **options)

    def close(self) -> None:
        self.keeper.close()


def send(
    sender: Sender, number: int, size: int = 64, *, protected: bool = False, flush: bool = False
) -> int:
    flags = (FLAG_PROTECTED if protected else 0) | (FLAG_FLUSH if flush else 0)
    return sender.send("out", arrow.encode(message(number, size)), flags)


def drain(receiver: Receiver) -> list[Delivery]:
    """Receive everything that waits."""
    found = []
    while (delivery := receiver.receive()) is not None:
        found.append(delivery)
    return found


def numbers(deliveries: list[Delivery]) -> list[int]:
    """Return the numbers of messages, after a check of their bytes."""
    return [number_of(delivery.data) for delivery in deliveries]
