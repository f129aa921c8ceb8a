"""Records that are not what they should be: dropped, counted, and never a wrong byte."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings, strategies as st
from support.queues import Edge, Segments, drain, number_of, numbers, send

from dora_node_api.data import arrow
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RECORD, RecordKind


@contextmanager
def one(**options: object) -> Iterator[tuple[Edge, Sender, Receiver]]:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, **options)  # type: ignore[arg-type]
    sender, receiver = edge.sender(), edge.receiver()
    try:
        yield edge, sender, receiver
    finally:
        sender.close()
        receiver.close()
        edge.close()
        board.close()
        segments.close()


def change(edge: Edge, word: int, value: Callable[[int], int], *, keep_check: bool = False) -> None:
    """Take the oldest record out of the pipe and put it back with one word changed."""
    words = list(RECORD.unpack(os.read(edge.ends.data_read, 64)))
    words[word] = value(words[word]) & (1 << 64) - 1
    if not keep_check:
        words[7] = words[0] ^ layout.CHECK
    os.write(edge.ends.data_write, RECORD.pack(*words))


@pytest.mark.parametrize(
    ("word", "value", "problem"),
    [
        (layout.R_OFFSET, lambda _: 1 << 40, "lies at"),
        (layout.R_OFFSET, lambda v: v + 1, "lies at"),
        (layout.R_OFFSET, lambda v: v + 256, "replaced"),
        (layout.R_LENGTH, lambda _: 1 << 50, "lies at"),
        (layout.R_LENGTH, lambda _: 3, "lies at"),
        (layout.R_STAMP, lambda v: v - 1, "replaced"),
        (layout.R_SEGMENT, lambda v: v + 9, "cannot be opened"),
        (layout.R_TAGS, lambda v: v | 99 << 24, "unknown kind"),
        (layout.R_SEQUENCE, lambda _: 0, "not a record"),
    ],
)
def test_a_record_that_points_elsewhere_is_dropped(
    word: int, value: Callable[[int], int], problem: str
) -> None:
    with one() as (edge, sender, receiver):
        send(sender, 1)
        keep = word == layout.R_SEQUENCE
        change(edge, word, value, keep_check=keep)
        with pytest.raises(BrokenRecord, match=problem) as caught:
            receiver.receive()
        assert edge.spec.edge in str(caught.value)
        send(sender, 2)
        assert numbers(drain(receiver)) == [2]
        seen = edge.keeper.statistics()
        assert seen.sent == seen.received + seen.dropped
        assert seen.broken == 1
        if not keep:
            assert sender.held_bytes() == {}


def test_a_stale_record_is_noticed() -> None:
    with one(bound=5) as (edge, sender, receiver):
        send(sender, 1)
        record = os.read(edge.ends.data_read, 64)
        os.write(edge.ends.data_write, record)
        assert numbers(drain(receiver)) == [1]
        for number in range(2, 22):  # one of them replaces its block
            send(sender, number)
            assert numbers(drain(receiver)) == [number]
        words = list(RECORD.unpack(record))
        words[0] += 25
        words[7] = words[0] ^ layout.CHECK
        os.write(edge.ends.data_write, RECORD.pack(*words))
        edge.keeper._words[layout.P_SENT] += 5
        with pytest.raises(BrokenRecord, match="replaced"):
            receiver.receive()


def test_a_record_that_comes_twice_is_dropped() -> None:
    with one(bound=5) as (edge, sender, receiver):
        send(sender, 1)
        record = os.read(edge.ends.data_read, 64)
        os.write(edge.ends.data_write, record * 2)
        send(sender, 2)
        assert number_of(receiver.receive().data) == 1  # type: ignore[union-attr]
        with pytest.raises(BrokenRecord, match="came after"):
            receiver.receive()
        assert numbers(drain(receiver)) == [2]


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=200))
def test_the_receiver_recovers_from_garbage_in_the_pipe(garbage: bytes) -> None:
    with one(bound=8) as (edge, sender, receiver):
        os.write(edge.ends.data_write, garbage)
        edge.keeper._words[layout.P_SENT] += 1
        broken = 0
        for _ in range(10):
            try:
                if receiver.receive() is None:
                    break
            except BrokenRecord:
                broken += 1
        assert broken
        for number in range(3):
            send(sender, number)
        assert numbers(drain(receiver)) == [0, 1, 2]


def test_a_segment_that_cannot_be_opened_costs_only_its_messages() -> None:
    with one() as (edge, sender, receiver):
        send(sender, 1)
        known, edge.segments.known = edge.segments.known, {}  # type: ignore[union-attr]
        with pytest.raises(BrokenRecord, match="cannot be opened"):
            receiver.receive()
        edge.segments.known = known  # type: ignore[union-attr]
        send(sender, 2)
        assert numbers(drain(receiver)) == [2]


def test_an_interrupted_finalizer_costs_no_memory() -> None:
    with one(bound=5) as (_, sender, receiver):
        account = receiver._account
        for number in range(100):
            send(sender, number)
            delivery = receiver.receive()
            assert delivery is not None
            # What remains of a delivery whose finalizer a signal handler's exception ended.
            del delivery.account
            del delivery
        assert account.held <= 34
        account.release_lost()
        assert (account.held, account.held_bytes) == (0, 0)
        assert sender.held_bytes() == {}


def test_properties_of_a_delivery() -> None:
    with one() as (edge, sender, receiver):
        sender.send("out", arrow.encode(b"abc", {"a": [1]}))
        got = receiver.receive()
        assert got is not None
        assert got.kind is RecordKind.DATA
        assert got.sequence == 1
        assert got.value.equals(got.value)
        assert got.value.to_pylist() == [97, 98, 99]
        assert got.metadata["a"] == [1]
        assert got.metadata["timestamp"].tzinfo is not None
        assert abs(got.timestamp_ns - time.time_ns()) < 60e9
        assert 0 < got.sent_ns <= time.monotonic_ns()
        assert not got.copied
        assert not got.flags
        assert edge.spec.edge in repr(got)


def test_a_sender_without_readers_keeps_no_memory() -> None:
    with one(bound=10) as (edge, sender, receiver):
        for number in range(20):
            send(sender, number, 1 << 20)
        assert sender.pool.reserved_bytes >= 10 << 20
        receiver.close()
        edge.keeper.consumer_died()
        sender.remove_route(edge.spec.queue)
        assert sender.pool.reserved_bytes < 1 << 20
        assert sum(os.fstat(s.fd).st_blocks for s in sender.pool.segments) * 512 < 1 << 20


def test_closing_leaves_arrays_valid() -> None:
    with one() as (edge, sender, receiver):
        send(sender, 1, 5000)
        send(sender, 2)
        got = receiver.receive()
        receiver.close()
        receiver.close()
        assert receiver.pending() == 0
        sender.remove_route(edge.spec.queue)
        assert got is not None
        assert number_of(got.data) == 1
        array = got.value
        del got
        assert number_of(memoryview(array.buffers()[1])) == 1
        del array
        assert sender.held_bytes() == {}
