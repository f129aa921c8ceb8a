"""The pipes of a queue and what the runner writes into them."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import struct
from contextlib import suppress

import pytest
from support.queues import Edge, Segments, drain, numbers, send

from dora_node_api.errors import NodeInterrupted
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import MAX_BOUND, RECORD_SIZE, RecordKind
from dora_node_api.transport.shared.queue import QueueEnds, create_queue, pipe_capacity
from dora_node_api.transport.shared.specs import QueueSpec


def spec(bound: int, policy: str = "drop_oldest") -> QueueSpec:
    return QueueSpec(1, "a", "out", "b", "in", QueuePolicy(policy), bound)


@pytest.mark.parametrize("bound", [1, 64, 1000, MAX_BOUND])
@pytest.mark.parametrize("policy", ["drop_oldest", "backpressure"])
def test_pipes_hold_their_bound_however_their_pages_are_used(bound: int, policy: str) -> None:
    ends = create_queue(spec(bound, policy))
    assert pipe_capacity(ends.data_write) >= bound
    record = bytes(RECORD_SIZE)
    for _ in range(65):  # leave the page that is read first half used
        os.write(ends.data_write, record)
    for _ in range(33):
        os.read(ends.data_read, RECORD_SIZE)
    waiting = 32
    while waiting < bound:
        assert os.write(ends.data_write, record) == RECORD_SIZE
        waiting += 1
    assert ends.depth() == waiting
    ends.close()
    ends.close()


@pytest.mark.parametrize("bound", [0, -1, MAX_BOUND + 1])
def test_a_bound_that_no_pipe_holds_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match=f"queue_size of b/in is {bound}"):
        create_queue(spec(bound))


@pytest.mark.parametrize(("policy", "numbers"), [("drop_oldest", (3, 2)), ("backpressure", (4, 3))])
def test_each_end_gets_its_descriptors(policy: str, numbers: tuple[int, int]) -> None:
    ends = create_queue(spec(4, policy))
    assert (len(ends.for_producer()), len(ends.for_consumer())) == numbers
    producer = QueueEnds.from_producer_fds([os.dup(fd) for fd in ends.for_producer()])
    consumer = QueueEnds.from_consumer_fds([os.dup(fd) for fd in ends.for_consumer()])
    os.write(producer.data_write, bytes(RECORD_SIZE))
    assert consumer.depth() == producer.depth() == 1
    for part in (producer, consumer, ends):
        part.close()
    with pytest.raises(ValueError, match="not 1"):
        QueueEnds.from_producer_fds([1])
    with pytest.raises(ValueError, match="not 1"):
        QueueEnds.from_consumer_fds([1])


def test_lifecycle_records_that_do_not_fit_are_kept_except_restarts() -> None:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, bound=1)
    capacity = pipe_capacity(edge.ends.urgent_write)
    for _ in range(capacity + 200):
        edge.keeper.announce_restarted()
    edge.keeper.announce_closed()
    assert edge.keeper.needs_retry
    receiver = edge.receiver()
    kinds = []
    while (delivery := receiver.receive()) is not None:
        kinds.append(delivery.kind.name)
        edge.keeper.retry()
    assert kinds.pop() == "CLOSED"
    assert set(kinds) == {"NODE_RESTARTED"}
    assert not edge.keeper.needs_retry
    assert edge.keeper.statistics().dropped == 0
    receiver.close()
    edge.close()
    board.close()


def test_a_board_refuses_other_memory_and_reports_when_it_is_full() -> None:
    board = Board.create(64 << 10)
    with pytest.raises(ValueError, match="no area"):
        board.edge_words(3)
    area, slots = board.allocate_edge(10)
    assert slots >= 20
    board.free_edge(area)
    from dora_node_api.transport.shared.errors import BoardFull

    areas = {board.allocate_edge(10)[0] for _ in range(7)}
    assert area in areas  # freed ones are used again, last
    assert len(areas) == 7
    with pytest.raises(BoardFull):
        board.allocate_edge(10)
    board.free_edge(area)
    assert board.allocate_edge(10)[0] == area
    board.close()
    other = os.memfd_create("x")
    os.ftruncate(other, 64 << 10)
    with pytest.raises(ValueError, match="not a status board"):
        Board.attach(other, 64 << 10)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(other)


def test_a_process_that_attached_keeps_no_descriptor_of_the_board() -> None:
    """A descriptor could write the words of all edges."""
    board = Board.create(1 << 20)
    before = len(os.listdir("/proc/self/fd"))
    attached = Board.attach(os.dup(board.fd), board.size)
    assert len(os.listdir("/proc/self/fd")) == before
    area, _ = board.allocate_edge(10)
    board.edge_words(area)[layout.P_SENT] = 7
    assert attached.edge_words(area)[layout.P_SENT] == 7
    attached.close()
    board.close()


@pytest.mark.parametrize("end", ["producer", "consumer"])
def test_a_process_can_write_only_its_own_words(end: str) -> None:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, journal=True)
    own = {"producer": layout.P_SENT, "consumer": layout.C_RECEIVED}
    for other in own:
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()  # its report would look like a crash of the tests
            attached = Board.attach(os.dup(board.fd), board.size)
            getattr(attached, f"own_{end}")(edge.spec)
            attached.edge_words(edge.spec.area)[own[other]] = 7
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) == (0 if other == end else -signal.SIGSEGV)
    edge.close()
    board.close()
    segments.close()


@pytest.mark.parametrize("ends", ["producer first", "consumer first"])
@pytest.mark.parametrize("byte", [b"\0", b"\x7f", b"\xff"])
def test_overwritten_words_of_both_ends_are_repaired(ends: str, byte: bytes) -> None:
    """An edge from a node to itself."""
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, bound=5)
    sender, receiver = edge.sender(), edge.receiver()
    for number in range(9):
        send(sender, number)
    drain(receiver)
    assert edge.keeper.check() is None
    words = board.edge_words(edge.spec.area)
    words[:] = memoryview(byte * 8 * len(words)).cast("Q")
    assert edge.keeper.check() is not None
    sender.close()
    receiver.close()
    died = [edge.keeper.producer_died, edge.keeper.consumer_died]
    for end in died if ends == "producer first" else reversed(died):
        end()
    assert edge.keeper.check() is None
    sender, receiver = edge.sender(2), edge.receiver()
    send(sender, 11)
    edge.keeper.announce_closed()
    assert numbers(drain(receiver)[:1]) == [11]
    receiver.close()
    sender.close()
    edge.close()
    board.close()
    segments.close()


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
@pytest.mark.parametrize("by_producer", [True, False])
def test_overwritten_words_are_found_and_repaired(by_producer: bool, byte: bytes) -> None:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, bound=5)
    sender, receiver = edge.sender(), edge.receiver()
    for number in range(9):
        send(sender, number)
    assert numbers(drain(receiver)) == [4, 5, 6, 7, 8]
    assert edge.keeper.check() is None
    for number in range(9, 11):
        send(sender, number)
    words = board.edge_words(edge.spec.area)
    ours = slice(layout.P_SENT, None) if by_producer else slice(0, layout.P_SENT)
    words[ours] = memoryview(byte * 8 * len(words[ours])).cast("Q")
    found = edge.keeper.check()
    assert found is not None
    assert found.by == ("producer" if by_producer else "consumer")
    if by_producer:
        sender.close()
        edge.keeper.producer_died()
        sender = edge.sender(2)
    else:
        receiver.close()
        edge.keeper.consumer_died()
        receiver = edge.receiver()
    assert edge.keeper.check() is None
    send(sender, 11)
    assert numbers(drain(receiver)) == [9, 10, 11]
    assert edge.keeper.statistics().queued == 0
    edge.keeper.announce_closed()
    assert [delivery.kind for delivery in drain(receiver)] == [RecordKind.CLOSED]
    receiver.close()
    sender.close()
    edge.close()
    board.close()
    segments.close()


@pytest.mark.parametrize("by_producer", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_no_end_is_blamed_for_words_of_the_other(by_producer: bool, seed: int) -> None:
    """Whatever one of them writes into its own words, and whenever."""
    chance = random.Random(seed)
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, bound=chance.choice([1, 5]))
    sender, receiver = edge.sender(), edge.receiver()
    words = board.edge_words(edge.spec.area)
    known = [*range(layout.P_SENT, layout.EDGE_WORDS)]
    if not by_producer:
        known = [*range(layout.X_CONSUMER_DEAD + 1), layout.HISTOGRAM + 20]

    def exchange() -> None:
        with suppress(OverflowError, ValueError, struct.error, NodeInterrupted):
            for number in range(chance.randrange(1, 600)):
                send(sender, number)
                if chance.random() < 0.7:
                    with suppress(BrokenRecord):
                        receiver.receive()

    exchange()
    if chance.random() < 0.7:
        assert edge.keeper.check() is None
        exchange()
    for word in chance.sample(known, chance.choice([1, 1, 2, len(known)])):
        kind = chance.randrange(4)
        wrong = [0, 100_000, (1 << 64) - 1, words[word] ^ 1 << chance.randrange(64)][kind]
        words[word] = wrong
    for _ in range(2):
        found = edge.keeper.check()
        assert found is None or found.by in (None, "producer" if by_producer else "consumer")
        exchange()
    with suppress(OverflowError, ValueError, NodeInterrupted):
        sender.close()
    receiver.close()
    edge.close()
    board.close()
    segments.close()


@pytest.mark.parametrize("journal", [False, True])
def test_what_ended_processes_had_in_their_hands_is_lost(journal: bool) -> None:
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments, bound=5, policy="backpressure", journal=journal)
    sender = edge.sender()
    for number in range(3):
        send(sender, number)
    words = board.edge_words(edge.spec.area)

    def counted() -> tuple[int, int]:
        seen = edge.keeper.statistics()
        return seen.queued, seen.dropped

    os.read(edge.ends.data_read, RECORD_SIZE)  # by a reader that stops before it counts
    words[layout.P_SENT] += 1  # by a sender that is killed before it writes
    assert counted() == (4, 0)
    edge.keeper.producer_died()
    assert counted() == (2, 2)
    words[layout.C_RECEIVED] += 1
    assert counted() == (2, 1)
    os.read(edge.ends.data_read, RECORD_SIZE)  # by a reader that is killed before it counts
    edge.keeper.consumer_died()
    # A link has the record in its journal: its next process counts it.
    assert counted() == ((2, 1) if journal else (1, 2))
    sender.close()
    edge.close()
    board.close()
    segments.close()
