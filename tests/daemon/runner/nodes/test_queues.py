"""The runner's queues, and the segments of producers that have ended."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pyarrow as pa
import pytest
from daemon.runner.dataflows import node
from daemon.runner.flows import open_descriptors, run_flow
from support.workspace import Workspace

from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.logs.publishing import RunnerOutputs
from dora_daemon.runner.machine.wiring import Edge
from dora_daemon.runner.nodes import queues
from dora_daemon.runner.nodes.queues import KeptQueue, QueueBook, hold_limit
from dora_node_api.data import arrow
from dora_node_api.protocol.pool_size import POOL_SIZE_VARIABLE
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared import layout, queue
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.queue import QueueEnds

EDGE = Edge("a", "x", "b", "in")


@pytest.fixture
def book() -> Iterator[QueueBook]:
    book = QueueBook(Board.create())
    yield book
    book.close()


def ends_of(descriptors: list[int]) -> list[int]:
    return [os.dup(descriptor) for descriptor in descriptors]


def producer(book: QueueBook, kept: KeptQueue, incarnation: int) -> Sender:
    """A sending process of this incarnation, in this process."""

    def register(number: int, descriptor: int, size: int) -> None:
        book.add_segment(incarnation, number, os.dup(descriptor), size)

    sender = Sender(Pool(1 << 24, register), book.board, incarnation)
    ends = QueueEnds.from_producer_fds(ends_of(kept.ends.for_producer()))
    sender.add_route("x", kept.spec, ends)
    return sender


def consumer(book: QueueBook, kept: KeptQueue) -> Receiver:
    def open_segment(incarnation: int, number: int) -> tuple[int, int]:
        found = book.segment(incarnation, number)
        if found is None:
            raise LookupError(f"{incarnation}/{number}")
        return os.dup(found[0]), found[1]

    ends = QueueEnds.from_consumer_fds(ends_of(kept.ends.for_consumer()))
    return Receiver(kept.spec, ends, book.board, open_segment)


def test_an_edge_has_one_queue(book: QueueBook) -> None:
    kept, new = book.ensure(EDGE, bound=5, backpressure=True)
    assert new
    assert book.ensure(EDGE, bound=5) == (kept, False)
    assert kept.spec.backpressure
    assert book.into("b") == book.out_of("a") == book.out_of("a", ["x"]) == [kept]
    assert book.out_of("a", ["y"]) == book.into("a") == []
    book.drop(EDGE)
    assert book.get(EDGE) is None
    again, _ = book.ensure(EDGE, bound=5)
    assert again.spec.queue != kept.spec.queue


def test_what_the_runner_sends_is_always_drop_oldest(book: QueueBook) -> None:
    kept, _ = book.ensure(EDGE, bound=5, backpressure=True, from_runner=True)
    assert not kept.spec.backpressure


def test_a_dead_producers_segments_stay_until_its_messages_were_read(book: QueueBook) -> None:
    kept, _ = book.ensure(EDGE, bound=5)
    sender = producer(book, kept, 7)
    for number in range(3):
        sender.send("x", arrow.encode(bytes([number]) * 100))
    sender.close()
    book.producer_died("a", 7)
    book.announce_closed("a")
    book.tidy()
    assert book.segment_bytes(7) > 0
    assert book.queued("b") == 4
    receiver = consumer(book, kept)
    kinds = []
    while (delivery := receiver.receive()) is not None:
        kinds.append(delivery.kind)
        if delivery.kind == RecordKind.DATA:
            assert delivery.value.to_pylist() == [len(kinds) - 1] * 100
        del delivery
    assert kinds == [RecordKind.DATA] * 3 + [RecordKind.CLOSED]
    book.tidy()
    assert book.segment_bytes(7) == 0
    assert not book.untidy
    receiver.close()


def test_a_queue_that_goes_takes_its_claim_with_it(book: QueueBook) -> None:
    kept, _ = book.ensure(EDGE, bound=5)
    sender = producer(book, kept, 7)
    sender.send("x", arrow.encode(b"1" * 100))
    sender.close()
    book.producer_died("a", 7)
    assert book.untidy
    book.drop(EDGE)
    book.tidy()
    assert book.segment_bytes(7) == 0


def test_lines_of_the_runner_arrive_as_arrays_of_one_text(book: QueueBook) -> None:
    kept, _ = book.ensure(EDGE, bound=2, from_runner=True)
    outputs = RunnerOutputs(book)
    outputs.send_text("route", "nobody listens yet")
    outputs.add_route("route", kept)
    for text in ("one", "two", "three"):
        outputs.send_text("route", text)
    receiver = consumer(book, kept)
    found = []
    while (delivery := receiver.receive()) is not None:
        assert delivery.value.type == pa.string()
        found += delivery.value.to_pylist()
    assert found == ["two", "three"]
    del delivery
    outputs.remove_route(kept)
    outputs.send_text("route", "nobody listens any more")
    receiver.close()
    outputs.close()


def test_nothing_stays_open(book: QueueBook) -> None:
    before = open_descriptors()
    for number in range(20):
        book.ensure(Edge("a", "x", f"c{number}", "in"), bound=5, backpressure=True)
    book.add_segment(3, 1, os.dup(0), 100)
    book.add_segment(3, 1, os.dup(0), 200)
    assert book.segment(3, 1) is not None
    book.remove_segment(9, 9)
    book.close()
    assert open_descriptors() <= before


def test_descriptors_that_run_out_are_told_with_the_edge_and_the_limit(
    book: QueueBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: object) -> QueueEnds:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("dora_daemon.runner.nodes.queues.create_queue", none_left)
    with pytest.raises(QueueUnavailable) as caught:
        book.ensure(EDGE, bound=5)
    assert "a/x -> b/in" in str(caught.value)
    assert "Too many open files" in str(caught.value)
    assert "ulimit -n" in str(caught.value)


def test_a_consumer_may_keep_a_quarter_of_a_pool_whose_size_was_set() -> None:
    by_default = hold_limit(node("a"), {})
    assert by_default == hold_limit(None, {}) == 64 << 20
    sized = node("a").model_copy(update={"shared_memory_pool_size": 20 << 20})
    assert hold_limit(sized, {POOL_SIZE_VARIABLE: "1G"}) == 5 << 20
    assert hold_limit(node("a"), {POOL_SIZE_VARIABLE: "1GB"}) == 256 << 20
    own = node("a").model_copy(update={"env": {POOL_SIZE_VARIABLE: "8M"}})
    assert hold_limit(own, {POOL_SIZE_VARIABLE: "1GB"}) == 2 << 20
    assert hold_limit(node("a"), {POOL_SIZE_VARIABLE: "much"}) == by_default


def test_an_edge_whose_journal_finds_no_room_gives_its_area_back() -> None:
    edge_size = layout.edge_area_size(layout.ledger_slots_for(5))
    book = QueueBook(Board.create(layout.PAGE + edge_size))
    try:
        with pytest.raises(QueueUnavailable, match="no room for another edge"):
            book.ensure(EDGE, bound=5, backpressure=True, journal=True)
        kept, new = book.ensure(EDGE, bound=5, backpressure=True)
        assert new
        assert kept.spec.journal == 0
    finally:
        book.close()


def test_queues_that_hold_less_than_was_asked_for_are_told_of_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(descriptor: int, command: int, *size: int) -> int:
        """As where an ordinary user's pipes have used up `pipe-user-pages-soft`."""
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError("Operation not permitted")
        return fcntl.fcntl(descriptor, command, *size)

    told: list[str] = []
    book = QueueBook(Board.create(), lambda node, text: told.append(f"{node}: {text}"))
    try:
        book.ensure(EDGE, bound=1000)
        assert told == []
        monkeypatch.setattr(queue, "fcntl", SimpleNamespace(fcntl=refused))
        book.ensure(Edge("a", "x", "c", "in"), bound=100)
        assert told == []
        book.ensure(Edge("a", "x", "d", "in"), bound=1000)
        book.ensure(Edge("a", "x", "e", "in"), bound=1000, backpressure=True)
    finally:
        monkeypatch.undo()
        book.close()
    assert [("a/x -> d/in" in text, "of 1000 messages (queue_size)" in text) for text in told] == [
        (True, True)
    ]
    assert "fs.pipe-user-pages-soft" in told[0]


def test_what_is_told_of_a_queue_stands_in_its_readers_log(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "shortfall", lambda spec, ends: "it is short")
    workspace.node("a", "from dora import Node\nNode()\n")
    workspace.node("b", "from dora import Node\nfor event in Node(): pass\n")
    nodes = [
        {"id": "a", "path": "a.py", "outputs": ["x"]},
        {"id": "b", "path": "b.py", "inputs": {"in": "a/x"}},
    ]
    ran = run_flow(workspace, {"nodes": nodes})
    assert ran.lines("b") == ["a/x -> b/in: it is short. Other queues may be as short"]
