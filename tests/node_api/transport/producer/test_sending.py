"""Samples, memory that runs out, handlers that send, and forked children."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
from support.queues import Edge, Segments, drain, free_bytes, message, number_of, numbers, send
from support.waiting import wait_until

from dora_node_api.data import arrow
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.errors import NodeForked
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.producer import pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import PoolExhausted, SampleError
from dora_node_api.transport.shared.payload import Payload


class Place:
    """A board, its segments, and whatever a test opens on them."""

    def __init__(self) -> None:
        self.board = Board.create(1 << 20)
        self.segments = Segments()
        self.edges: list[Edge] = []

    def edge(self, **options: object) -> Edge:
        edge = Edge(self.board, self.segments, queue=len(self.edges) + 1, **options)  # type: ignore[arg-type]
        self.edges.append(edge)
        return edge

    def close(self) -> None:
        for edge in self.edges:
            edge.close()
        self.board.close()
        self.segments.close()


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()
    vars(place).clear()  # pytest keeps the fixture's value longer than the look for leftovers


# --- samples ----------------------------------------------------------------------------------
def test_a_sample_is_filled_in_place(place: Place) -> None:
    edge = place.edge()
    sender, receiver = edge.sender(), edge.receiver()
    sample = sender.allocate_sample(1000, encode_metadata({"k": 1}))
    buffer = sample.as_buffer()
    assert sample.as_buffer() is buffer
    assert sample.as_memoryview() is not sample.as_memoryview()
    np.frombuffer(buffer, np.uint8)[:] = np.arange(1000) % 256
    del buffer
    assert sender.send_sample("out", sample) == 1
    got = receiver.receive()
    assert got is not None
    assert got.value.type == pa.uint8()
    assert got.value.to_pylist() == [n % 256 for n in range(1000)]
    assert got.metadata["k"] == 1
    with pytest.raises(SampleError, match="already been sent"):
        sender.send_sample("out", sample)
    with pytest.raises(SampleError, match="already been sent"):
        sample.as_memoryview()
    with pytest.raises(BufferError):
        sample.as_buffer()
    del got
    assert sender.held_bytes() == {}
    sender.close()
    receiver.close()


def test_a_sample_with_open_views_is_not_sent(place: Place) -> None:
    edge = place.edge()
    sender, receiver = edge.sender(), edge.receiver()
    sample = sender.allocate_sample(10)
    array = np.frombuffer(sample.as_buffer(), np.uint8)
    with pytest.raises(SampleError, match=r"buffer view\(s\) still open"):
        sender.send_sample("out", sample)
    del array
    view = sample.as_memoryview()
    with pytest.raises(SampleError, match=r"buffer view\(s\) still open"):
        sender.send_sample("out", sample)
    assert receiver.receive() is None
    view.release()
    assert sender.send_sample("out", sample) == 1
    sender.close()
    receiver.close()


def test_a_sample_that_is_dropped_gives_its_memory_back(place: Place) -> None:
    sender = place.edge().sender(cap=1 << 20)
    for _ in range(100):
        sample = sender.allocate_sample(300_000)
        del sample
    sample = sender.allocate_sample(300_000)
    sample.discard()
    with pytest.raises(SampleError):
        sender.send_sample("out", sample)
    assert sender.send_sample("nowhere", sender.allocate_sample(5)) == 0
    assert sender.held_bytes() == {}
    assert free_bytes(sender.pool) == sender.pool.reserved_bytes
    sender.close()


def test_a_discarded_sample_with_an_open_view_is_not_used_again(place: Place) -> None:
    sender = place.edge().sender()
    sample = sender.allocate_sample(100)
    array = np.frombuffer(sample.as_buffer(), np.uint8)
    sample.discard()
    for number in range(5):
        send(sender, number, 100)
    array[:] = 1  # memory that is not reused
    assert bytes(array) == b"\1" * 100
    sender.close()


# --- memory that runs out ---------------------------------------------------------------------
def test_a_message_larger_than_the_pool_names_the_setting(place: Place) -> None:
    sender = place.edge().sender(cap=1 << 20)
    with pytest.raises(PoolExhausted, match="shared_memory_pool_size") as caught:
        sender.send("out", arrow.encode(bytes(2 << 20)))
    assert isinstance(caught.value, MemoryError)
    assert caught.value.needed > 2 << 20
    assert caught.value.cap == 1 << 20
    assert send(sender, 1) == 1
    sender.close()


@pytest.mark.parametrize(
    ("number", "limit"), [(errno.ENOMEM, r"\(`ulimit -v`\)"), (errno.EFBIG, r"\(`ulimit -f`\)")]
)
def test_a_segment_refused_by_a_limit_names_the_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int, limit: str
) -> None:
    def refused(fd: int, size: int, *, writable: bool) -> mmap.mmap:
        raise OSError(number, os.strerror(number))

    sender = place.edge().sender()
    with monkeypatch.context() as patch:
        patch.setattr(pool, "map_memory", refused)  # as by RLIMIT_AS, RLIMIT_FSIZE
        with pytest.raises(PoolExhausted, match=limit):
            send(sender, 0)
    assert send(sender, 1) == 1
    sender.close()


@pytest.mark.parametrize("size", [100_000, 400_000])
def test_old_messages_are_dropped_before_memory_runs_out(place: Place, size: int) -> None:
    edge = place.edge(bound=100)
    warned: list[str] = []
    sender = edge.sender(cap=1 << 20, on_first_drop=lambda _, text: warned.append(text))
    receiver = edge.receiver()
    for number in range(30):
        send(sender, number, size)
    # Not that the queue is full, of which a larger queue_size would be the remedy.
    assert [text.partition("raise ")[2] for text in warned] == [
        "its `shared_memory_pool_size` (DORA_NODE_SHM_POOL_SIZE)"
    ]
    got = numbers(drain(receiver))
    assert got[-1] == 29
    assert got == list(range(30 - len(got), 30))
    assert len(got) >= (1 << 20) // (size * 5 // 4)
    sender.close()
    receiver.close()


def full_pool(edge: Edge) -> tuple[Sender, Receiver, list[Delivery | None]]:
    """Return two ends, and the deliveries that hold the sender's memory."""
    sender, receiver = edge.sender(cap=1 << 20), edge.receiver()
    kept = []
    for number in range(2):
        send(sender, number, 400_000)
        kept.append(receiver.receive())
    return sender, receiver, kept


def test_what_consumers_hold_is_named_when_memory_runs_out(place: Place) -> None:
    edge = place.edge(bound=2)
    sender, receiver, kept = full_pool(edge)
    with pytest.raises(PoolExhausted, match="camera/out -> plot/in holds") as caught:
        send(sender, 9, 400_000)
    assert sum(caught.value.holders.values()) >= 800_000
    assert [number_of(d.data) for d in kept if d] == [0, 1]
    kept.clear()
    assert send(sender, 10, 400_000) == 1
    sender.close()
    receiver.close()


def test_a_full_pool_waits_for_a_consumer_that_releases_soon(place: Place) -> None:
    edge = place.edge(bound=5, policy="backpressure")
    sender, receiver, kept = full_pool(edge)
    timer = threading.Timer(0.05, kept.clear)
    timer.start()
    assert send(sender, 9, 400_000) == 1
    timer.join()
    assert numbers(drain(receiver)) == [9]
    sender.close()
    receiver.close()


def test_a_wrong_counter_of_a_reader_does_not_disable_the_bound() -> None:
    """The runner restores it when the reader has ended."""
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, bound=2)
    sender, receiver = edge.sender(), edge.receiver()
    words = edge.keeper._words
    words[layout.C_RECEIVED] += 1000
    send(sender, 0)
    words[layout.C_RECEIVED] -= 1000
    for number in range(1, 21):
        send(sender, number)
    assert numbers(drain(receiver)) == [19, 20]
    for closing in (receiver, sender, edge, board, segments):
        closing.close()


@pytest.mark.parametrize("check", [layout.CHECK, 0])
@pytest.mark.parametrize("slot", [0, 5000, layout.NO_SLOT])
def test_a_foreign_record_is_dropped_for_newer_messages(
    place: Place, slot: int, check: int
) -> None:
    edge = place.edge(bound=2)
    sender, receiver = edge.sender(), edge.receiver()
    tags = layout.pack_tags(slot, 7, 0, 0)
    word = sender.incarnation << 32
    record = layout.RECORD.pack(1, word, 1 << 40, 1 << 50, 0, 9, tags, 1 ^ check)
    os.write(edge.ends.data_write, record)
    for number in range(4):
        send(sender, number)
    assert numbers(drain(receiver))[-1] == 3
    assert edge.keeper.check() is None
    sender.close()
    receiver.close()


def test_a_full_pool_does_not_wait_for_ever(place: Place) -> None:
    edge = place.edge(bound=5, policy="backpressure")
    sender, receiver, kept = full_pool(edge)
    with pytest.raises(PoolExhausted, match="camera/out -> plot/in holds"):
        send(sender, 9, 400_000)
    assert len(kept) == 2
    sender.close()
    receiver.close()


def test_a_full_pool_waits_for_a_backpressure_queue(place: Place) -> None:
    edge = place.edge(bound=50, policy="backpressure")
    sender, receiver = edge.sender(cap=1 << 20), edge.receiver()

    def produce() -> None:
        for number in range(12):
            send(sender, number, 300_000)

    thread = threading.Thread(target=produce)
    thread.start()
    wait_until(lambda: receiver.pending() >= 2, what="a filled pool")
    got: list[int] = []
    while len(got) < 12:
        got += numbers(drain(receiver))
    thread.join(10)
    assert got == list(range(12))
    sender.close()
    receiver.close()


# --- handlers, threads, children --------------------------------------------------------------
def test_a_nested_send_of_a_handler_is_refused(place: Place) -> None:
    edge = place.edge()
    sender = edge.sender()
    raised: list[BaseException] = []

    class Nosy(Payload):
        def write_into(self, memory: object, at: int = 0, stamp: int = 0) -> None:
            signal.raise_signal(signal.SIGUSR1)

    def handler(*_: object) -> None:
        try:
            send(sender, 1)
        except RuntimeError as error:
            raised.append(error)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        plain = arrow.encode(b"abc")
        nosy = Nosy(plain.descriptor, b"", plain.layout, 3, 0, 3, plain.data)
        assert sender.send("out", nosy) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(raised) == 1
    assert "signal handler" in str(raised[0])
    assert send(sender, 2) == 1
    sender.close()


def test_a_forked_child_is_refused_and_harmless(place: Place) -> None:
    edge = place.edge(bound=5)
    sender, receiver = edge.sender(), edge.receiver()
    for number in range(3):
        send(sender, number)
    held = receiver.receive()
    sample = sender.allocate_sample(10)
    pid = os.fork()
    if pid == 0:
        code = 0

        def read_value(delivery: Delivery | None = held) -> object:
            return delivery and delivery.value

        actions: list[Callable[[], object]] = [
            lambda: send(sender, 9),
            receiver.receive,
            lambda: sender.allocate_sample(1),
            lambda: sender.send_sample("out", sample),
            read_value,
            lambda: sender.remove_route(1),
        ]
        for bit, action in enumerate(actions):
            try:
                action()
                code |= 1 << bit
            except NodeForked as error:
                if "spawn" not in str(error):
                    code |= 64
        sender.close()
        receiver.close()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert held is not None
    for number in range(3, 20):
        send(sender, number)
    assert number_of(held.data) == 0
    assert list(sender.held_bytes()) == [edge.spec.edge]
    assert numbers(drain(receiver))[-1] == 19
    del held
    assert sender.held_bytes() == {}
    sample.discard()
    sender.close()
    receiver.close()


def test_a_child_may_open_ends_of_its_own(place: Place) -> None:
    edge = place.edge()
    sender = edge.sender()
    send(sender, 5)
    pid = os.fork()
    if pid == 0:
        receiver = edge.receiver()
        delivery = receiver.receive()
        os._exit(0 if delivery and number_of(delivery.data) == 5 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    edge.keeper.consumer_died()
    assert sender.held_bytes() == {}
    sender.close()


def test_a_large_first_message_and_memory_that_comes_back(place: Place) -> None:
    edge = place.edge(bound=1)
    sender, receiver = edge.sender(cap=256 << 20), edge.receiver()
    data = message(0, 100) + bytes(30 << 20)
    for _ in range(3):
        sender.send("out", arrow.encode(data))
        drain(receiver)
    assert sender.held_bytes() == {}
    sender.pool.trim()
    sender.pool.trim()
    assert sender.pool.reserved_bytes < 40 << 20
    sender.close()
    receiver.close()


def test_a_send_waits_for_another_thread(place: Place) -> None:
    """The lock is the other thread's from the moment in which it takes it, not a little later."""
    edge = place.edge()
    sender, receiver = edge.sender(), edge.receiver()
    send(sender, 1)
    taken, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with sender._lock:
            taken.set()
            enough.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(10)
    soon = threading.Timer(0.05, enough.set)
    soon.start()
    send(sender, 2)
    thread.join()
    soon.join()
    assert numbers(drain(receiver)) == [1, 2]
    sender.close()
    receiver.close()


def test_no_send_overtakes_one_that_waits_for_room(place: Place) -> None:
    edge = place.edge(bound=1, policy="backpressure")
    waits, go_on = threading.Event(), threading.Event()

    def wait_for_room(*_: object) -> bool:
        waits.set()
        return go_on.wait(60)

    sender, receiver = edge.sender(wait_for_room=wait_for_room), edge.receiver()
    send(sender, 0)
    threads = []
    waiting = sender._outputs["out"].waiting
    for number in (1, 2):
        thread = threading.Thread(target=send, args=(sender, number))
        thread.start()
        threads.append(thread)
        wait_until(lambda: len(waiting) == len(threads), what="a waiting send")
        if number == 1:
            assert waits.wait(60), "it has found no room"
            # There is room again, which belongs to the first.
            assert numbers(drain(receiver)) == [0]
    go_on.set()
    received: list[int] = []
    while len(received) < 2:
        received += numbers(drain(receiver))
    for thread in threads:
        thread.join()
    assert received == [1, 2]
    assert not waiting
    sender.close()
    receiver.close()
