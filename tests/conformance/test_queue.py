"""Requirements for every queue, policy, payload size and number of ends."""

from __future__ import annotations

import fcntl
import inspect
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
from support.queues import Edge, Segments, drain, free_bytes, message, number_of, numbers, send
from support.simulation.stepping import Steps
from support.waiting import wait_until

from dora_config.dataflow.resolved import QueuePolicy
from dora_node_api import queue_policy
from dora_node_api.data import arrow
from dora_node_api.transport.consumer.journal import LinkReceiver
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import PAGE, RecordKind
from dora_node_api.transport.shared.queue_keeper import QueueKeeper
from dora_node_api.transport.shared.specs import QueueSpec

POLICIES = get_args(QueuePolicy)
SIZES = (24, 4096, 300_000)


class World:
    """One board with the edges, senders and receivers of a test."""

    def __init__(self) -> None:
        self.board = Board.create(4 << 20)
        self.segments = Segments()
        self.edges: list[Edge] = []
        self.opened: list[Any] = []

    def edge(self, **options: Any) -> Edge:
        edge = Edge(self.board, self.segments, queue=len(self.edges) + 1, **options)
        self.edges.append(edge)
        return edge

    def sender(self, edge: Edge, incarnation: int = 1, **options: Any) -> Sender:
        sender = edge.sender(incarnation, **options)
        self.opened.append(sender)
        return sender

    def receiver(self, edge: Edge, **options: Any) -> Receiver:
        receiver = edge.receiver(**options)
        self.opened.append(receiver)
        return receiver

    def pair(self, **options: Any) -> tuple[Edge, Sender, Receiver]:
        edge = self.edge(**options)
        return edge, self.sender(edge), self.receiver(edge)

    def close(self) -> None:
        for thing in self.opened:
            thing.close()
        for edge in self.edges:
            edge.close()
        self.board.close()
        self.segments.close()


@contextmanager
def world() -> Iterator[World]:
    made = World()
    try:
        yield made
    finally:
        made.close()


def never_wait(*_: object) -> bool:
    return False


def test_policies_of_dataflow_files_are_those_of_queues() -> None:
    assert tuple(queue_policy.QueuePolicy) == POLICIES


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", SIZES)
def test_messages_arrive_in_order_with_their_bytes(policy: str, size: int) -> None:
    with world() as w:
        edge, sender, receiver = w.pair(policy=policy, bound=5)
        for round_ in range(20):
            for number in range(round_ * 3, round_ * 3 + 3):
                send(sender, number, size)
            assert numbers(drain(receiver)) == list(range(round_ * 3, round_ * 3 + 3))
        assert receiver.receive() is None
        assert edge.keeper.statistics().dropped == 0


@pytest.mark.parametrize("bound", [1, 2, 5, 63, 64, 65, 200, 1000, 16_000])
def test_exactly_the_newest_wait_after_a_long_pause(bound: int) -> None:
    with world() as w:
        edge, sender, receiver = w.pair(bound=bound)
        for number in range(bound + 137):
            send(sender, number, 24)
        assert receiver.pending() == bound
        assert numbers(drain(receiver)) == list(range(137, bound + 137))
        seen = edge.keeper.statistics()
        assert (seen.sent, seen.received, seen.dropped) == (bound + 137, bound, 137)


def test_protected_messages_stay_and_keep_their_place() -> None:
    with world() as w:
        _, sender, receiver = w.pair(bound=3)
        for number in range(20):
            send(sender, number, protected=number in (2, 5, 18))
        got = drain(receiver)
        assert numbers(got) == [2, 5, 16, 17, 18, 19]
        assert [d.flags for d in got] == [1, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("pause_at", [0, 1, 2])
def test_a_message_held_back_is_dropped_when_newer_ones_fill_the_queue(pause_at: int) -> None:
    with world() as w:
        edge, sender, receiver = w.pair(bound=3)
        send(sender, 0)
        send(sender, 1, protected=True)
        send(sender, 2)
        first = [receiver.receive() for _ in range(pause_at)]
        for number in range(3, 10):
            send(sender, number)
        rest = drain(receiver)
        expected = [n for n in (1, 7, 8, 9) if n >= pause_at]
        assert numbers(rest) == expected
        seen = edge.keeper.statistics()
        assert seen.sent == 10 == len(first) + len(rest) + seen.dropped


def test_too_many_protected_messages_are_refused_and_counted() -> None:
    warned: list[str] = []
    with world() as w:
        edge = w.edge(bound=2)
        sender = w.sender(edge, on_first_drop=lambda _, text: warned.append(text))
        receiver = w.receiver(edge)
        for number in range(3000):
            send(sender, number, protected=True)
        edge.keeper.announce_closed()
        got = drain(receiver)
        assert got.pop().kind is RecordKind.CLOSED
        kept = numbers(got)
        assert 256 <= len(kept) < 3000
        assert kept == list(range(len(kept)))
        seen = edge.keeper.statistics()
        assert seen.dropped == 3000 - len(kept)
        start = f"{edge.spec.edge}: {len(kept)} requests and goals wait, as many as fit, so further"
        assert [text.startswith(start) for text in warned] == [True]


def test_flush_drops_waiting_but_not_protected_messages() -> None:
    with world() as w:
        _, sender, receiver = w.pair(bound=10)
        for number in range(5):
            send(sender, number, protected=number == 1)
        send(sender, 5, flush=True)
        send(sender, 6)
        assert numbers(drain(receiver)) == [1, 5, 6]


def test_flush_drops_a_message_that_the_receiver_holds() -> None:
    with world() as w:
        _, sender, receiver = w.pair(bound=10)
        send(sender, 0, protected=True)
        send(sender, 1)
        send(sender, 2, protected=True)
        send(sender, 3)
        first = [receiver.receive() for _ in range(3)]
        assert len([d for d in first if d]) == 3
        assert receiver.holds_record
        send(sender, 4, flush=True)
        assert numbers(drain(receiver)) == [4]


@pytest.mark.parametrize("size", SIZES)
def test_backpressure_loses_nothing_and_blocks_the_sender(size: int) -> None:
    with world() as w:
        edge, sender, receiver = w.pair(policy="backpressure", bound=4)
        waiter = Waiter()
        waiter.add(receiver)

        def produce() -> None:
            for number in range(200):
                send(sender, number, size)

        thread = threading.Thread(target=produce)
        thread.start()
        wait_until(lambda: edge.keeper.statistics().blocked, what="a blocked sender")
        assert receiver.pending() == 4
        got: list[int] = []
        while len(got) < 200:
            assert waiter.wait(10)
            got += numbers(drain(receiver))
            assert receiver.pending() <= 4
        thread.join(10)
        waiter.close()
        assert got == list(range(200))
        seen = edge.keeper.statistics()
        assert seen.dropped == 0
        assert not seen.blocked


def test_a_blocked_sender_continues_when_the_queue_is_removed() -> None:
    with world() as w:
        edge = w.edge(policy="backpressure", bound=1)
        sender = w.sender(edge)
        send(sender, 0)
        done = threading.Event()

        def produce() -> None:
            send(sender, 1)
            done.set()

        thread = threading.Thread(target=produce)
        thread.start()
        wait_until(lambda: edge.keeper.statistics().blocked, what="a blocked sender")
        sender.remove_route(edge.spec.queue)
        edge.keeper.ring_room()
        assert done.wait(10)
        thread.join()


def test_a_blocked_sender_can_be_interrupted_and_can_give_up() -> None:
    class Stop(Exception):
        pass

    answers: list[object] = []

    def wait_for_room(spec: QueueSpec, fd: int, timeout: float) -> bool:
        answer = answers.pop()
        if answer is Stop:
            raise Stop
        return bool(answer)

    with world() as w:
        edge = w.edge(policy="backpressure", bound=1)
        sender = w.sender(edge, wait_for_room=wait_for_room)
        receiver = w.receiver(edge)
        send(sender, 0)
        answers[:] = [Stop, True]
        with pytest.raises(Stop):
            send(sender, 1)
        answers[:] = [False]
        assert send(sender, 2) == 0
        assert numbers(drain(receiver)) == [0]
        assert send(sender, 3) == 1
        assert numbers(drain(receiver)) == [3]
        assert sender.held_bytes() == {}
        assert edge.keeper.statistics().dropped == 1  # the one that was given up


def test_on_fan_out_drop_oldest_queues_do_not_wait_for_others() -> None:
    with world() as w:
        slow = w.edge(policy="backpressure", bound=1)
        fast = w.edge(bound=10)
        sender = w.sender(slow, wait_for_room=never_wait)
        sender.add_route("out", fast.spec, fast.for_producer())
        slow_receiver, receiver = w.receiver(slow), w.receiver(fast)
        assert send(sender, 0) == 2
        assert send(sender, 1) == 1
        assert numbers(drain(receiver)) == [0, 1]
        assert numbers(drain(slow_receiver)) == [0]


@pytest.mark.parametrize("size", SIZES)
def test_fan_out_writes_once_and_frees_with_the_last_release(size: int) -> None:
    with world() as w:
        edges = [w.edge(bound=4, names=("camera", f"plot{n}")) for n in range(5)]
        sender = w.sender(edges[0])
        for edge in edges[1:]:
            sender.add_route("out", edge.spec, edge.for_producer())
        assert sender.routes("out") == 5
        receivers = [w.receiver(edge) for edge in edges]
        assert send(sender, 7, size) == 5
        reserved = sender.pool.reserved_bytes
        got = [receiver.receive() for receiver in receivers]
        for index in range(5):
            delivery = got[index]
            assert delivery is not None
            assert number_of(delivery.data) == 7
        del delivery
        while got:
            assert len(sender.held_bytes()) == len(got)
            assert free_bytes(sender.pool) < reserved
            got.pop()
        assert sender.held_bytes() == {}
        assert free_bytes(sender.pool) == sender.pool.reserved_bytes == reserved


@pytest.mark.parametrize("policy", POLICIES)
def test_the_last_message_precedes_lifecycle_records(policy: str) -> None:
    with world() as w:
        edge, sender, receiver = w.pair(policy=policy, bound=3)
        for number in range(3):
            send(sender, number)
        sender.close()
        edge.keeper.announce_restarted()
        again = w.sender(edge, 2, wait_for_room=never_wait)
        # The news take a place in a backpressure queue.
        first = [receiver.receive(), receiver.receive()]
        assert numbers([d for d in first if d]) == [0, 1]
        send(again, 3)
        again.close()
        edge.keeper.announce_failed("it broke: ünfortunately")
        edge.keeper.announce_closed()
        got = drain(receiver)
        shown = [number_of(d.data) if d.kind is RecordKind.DATA else d.kind.name for d in got]
        assert shown == [2, "NODE_RESTARTED", 3, "NODE_FAILED", "CLOSED"]
        assert got[3].error == "it broke: ünfortunately"
        assert got[3].value is None
        assert got[3].metadata == {}
        assert not edge.keeper.needs_retry
        assert edge.keeper.statistics().dropped == 0


def test_messages_sent_before_the_consumer_runs_wait() -> None:
    with world() as w:
        edge = w.edge(bound=5)
        sender = w.sender(edge)
        for number in range(5):
            send(sender, number)
        sender.close()
        edge.keeper.announce_closed()
        got = drain(w.receiver(edge))
        assert numbers(got[:-1]) == [0, 1, 2, 3, 4]
        assert got[-1].kind is RecordKind.CLOSED


def test_a_dead_producers_segments_are_needed_until_everything_was_read() -> None:
    with world() as w:
        edge, sender, receiver = w.pair(bound=3)
        for number in range(3):
            send(sender, number)
        sender.close()
        end = edge.keeper.sent_sequence()
        edge.keeper.announce_closed()
        kept = []
        for _ in range(3):
            assert edge.keeper.may_reference(end)
            kept.append(receiver.receive())
        assert not edge.keeper.may_reference(end)


@pytest.mark.parametrize("kind", ["plain", "protected", "backpressure", "held"])
def test_a_dead_producers_segments_are_needed_while_a_record_is_in_hand(kind: str) -> None:
    """Check before every step of a receive, where a consumer may wait for the GIL."""
    policy = "backpressure" if kind in ("backpressure", "held") else "drop_oldest"
    stop, passed = 0, False
    while not passed:
        stop += 1
        with world() as w:
            edge = w.edge(bound=3, policy=policy, journal=kind == "held")
            receiver = w.receiver(edge)
            sender = w.sender(edge)
            send(sender, 7, protected=kind == "protected")
            sender.close()
            end = edge.keeper.sent_sequence()

            def tidy(edge: Edge = edge, end: int = end, w: World = w) -> None:
                if not edge.keeper.may_reference(end):
                    w.segments.close()

            steps = Steps(("consumer/receiving.py", "consumer/journal.py"), stop, tidy)
            got = steps.run(receiver.receive)
            assert number_of(got.data) == 7
            passed = steps.count < stop
            if isinstance(receiver, LinkReceiver):
                assert edge.keeper.may_reference(end)
                receiver.settle(end)
            assert not edge.keeper.may_reference(end)
            del got
    assert stop > 20


def test_a_dead_producers_segments_are_not_needed_once_its_records_were_evicted() -> None:
    with world() as w:
        edge, sender, _ = w.pair(bound=2)
        send(sender, 0)
        sender.close()
        end = edge.keeper.sent_sequence()
        again = w.sender(edge, 2)
        assert edge.keeper.may_reference(end)
        for number in range(3):
            send(again, number)
        assert not edge.keeper.may_reference(end)


def test_routes_change_while_messages_flow() -> None:
    with world() as w:
        first, second = w.edge(bound=10), w.edge(bound=10)
        sender = w.sender(first)
        one, two = w.receiver(first), w.receiver(second)
        send(sender, 0)
        sender.add_route("out", second.spec, second.for_producer())
        send(sender, 1)
        held = one.receive()
        sender.remove_route(first.spec.queue)
        sender.remove_route(999)
        send(sender, 2)
        assert numbers(drain(two)) == [1, 2]
        assert one.receive() is None
        # The array that the first consumer still has is not written over.
        assert held is not None
        for number in range(3, 30):
            send(sender, number)
            drain(two)
        assert number_of(held.data) == 0
        one.close()
        assert list(sender.held_bytes()) == [first.spec.edge]
        del held
        assert sender.held_bytes() == {}


def test_a_route_added_twice_is_one() -> None:
    with world() as w:
        edge, sender, receiver = w.pair()
        sender.add_route("out", edge.spec, edge.for_producer())
        assert sender.routes("out") == 1
        assert send(sender, 1) == 1
        assert numbers(drain(receiver)) == [1]


def test_without_routes_nothing_is_copied() -> None:
    with world() as w:
        edge = w.edge()
        sender = w.sender(edge)
        assert sender.send("elsewhere", arrow.encode(b"x")) == 0
        sender.remove_route(edge.spec.queue)
        assert send(sender, 0) == 0
        assert sender.pool.reserved_bytes == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_several_threads_send_at_once(policy: str) -> None:
    with world() as w:
        edge, sender, receiver = w.pair(policy=policy, bound=16_000)
        threads = [
            threading.Thread(
                target=lambda base=base: [
                    send(sender, base * 10_000 + n, SIZES[n % 3]) for n in range(100)
                ]
            )
            for base in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        got = numbers(drain(receiver))
        assert len(got) == 400
        for base in range(4):
            own = [n for n in got if n // 10_000 == base]
            assert own == sorted(own)
        assert sender.held_bytes() == {}
        assert edge.keeper.statistics().dropped == 0


def test_the_first_drop_is_reported_once_with_the_setting() -> None:
    warned: list[tuple[QueueSpec, str]] = []
    with world() as w:
        edge = w.edge(bound=2)
        sender = w.sender(edge, on_first_drop=lambda spec, text: warned.append((spec, text)))
        send(sender, 0)
        send(sender, 1)
        send(sender, 2, flush=True)
        assert warned == []
        for number in range(5):
            send(sender, number)
        assert [spec for spec, _ in warned] == [edge.spec]
        assert "queue_size" in warned[0][1]
        assert "camera/out -> plot/in" in warned[0][1]


def test_intended_drops_are_not_reported() -> None:
    warned: list[str] = []
    with world() as w:
        newest = w.edge(bound=1)
        sender = w.sender(newest, on_first_drop=lambda _, text: warned.append(text))
        for number in range(5):
            send(sender, number)
        assert newest.keeper.statistics().dropped == 4
        assert warned == []
        for number in range(3000):
            send(sender, number, protected=True)
        assert len(warned) == 1
        assert "requests and goals wait" in warned[0]


def test_what_a_stopped_sender_gives_up_is_counted_and_not_reported() -> None:
    warned: list[str] = []
    with world() as w:
        edge = w.edge(policy="backpressure", bound=2)
        sender = w.sender(
            edge,
            on_first_drop=lambda _, text: warned.append(text),
            wait_for_room=never_wait,
        )
        for number in range(5):
            send(sender, number)
        assert edge.keeper.statistics().dropped == 3
        assert warned == []


def test_a_pipe_that_holds_less_than_the_bound_is_named() -> None:
    warned: list[str] = []
    with world() as w:
        edge = w.edge(bound=1000)
        # As where an ordinary user's pipes have used up `pipe-user-pages-soft`.
        fcntl.fcntl(edge.ends.data_write, fcntl.F_SETPIPE_SZ, 2 * PAGE)
        sender = w.sender(edge, on_first_drop=lambda _, text: warned.append(text))
        for number in range(999):
            send(sender, number)
        got = numbers(drain(w.receiver(edge)))
        assert got == list(range(999 - len(got), 999))
        assert len(got) >= 64
        # Not that the queue is full, where a larger queue_size would help.
        assert [(text.count("1000"), text.count("holds 64 ")) for text in warned] == [(1, 1)]
        assert "fs.pipe-user-pages-soft" in warned[0]


def test_dropping_a_page_of_messages_takes_little_stack() -> None:
    with world() as w:
        edge = w.edge(bound=1000)
        fcntl.fcntl(edge.ends.data_write, fcntl.F_SETPIPE_SZ, 2 * PAGE)
        sender = w.sender(edge)
        for number in range(128):
            send(sender, number)
        depth = len(inspect.stack(0))
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(depth + 40)
        try:
            send(sender, 128)
        finally:
            sys.setrecursionlimit(limit)
        assert numbers(drain(w.receiver(edge))) == list(range(64, 129))


@pytest.mark.parametrize("limit", ["bytes", "slots"])
def test_a_consumer_that_keeps_everything_is_given_copies(limit: str) -> None:
    warned: list[str] = []
    with world() as w:
        hold = 1 << 20 if limit == "bytes" else 1 << 40
        size = 100_000 if limit == "bytes" else 24
        edge = w.edge(bound=10, hold_limit=hold)
        sender = w.sender(edge)
        receiver = w.receiver(edge, on_first_copy=warned.append)
        kept = []
        for number in range(1500 if limit == "slots" else 60):
            send(sender, number, size)
            kept.append(receiver.receive())
        assert all(kept)
        assert [number_of(d.data) for d in kept if d] == list(range(len(kept)))
        copied = [d.copied for d in kept if d]
        assert not any(copied[:8])
        assert copied[-1]
        assert len(warned) == 1
        assert "shared_memory_pool_size" in warned[0]
        held = sum(sender.held_bytes().values())
        assert held <= (2 << 20 if limit == "bytes" else 600 * 256)
        assert edge.keeper.statistics().copied == copied.count(True)
        kept.clear()
        assert sender.held_bytes() == {}
        send(sender, 0)
        fresh = receiver.receive()
        assert fresh is not None
        assert not fresh.copied


def test_statistics_are_readable_in_any_process_with_the_board() -> None:
    with world() as w:
        edge, sender, receiver = w.pair(bound=4)
        for number in range(6):
            send(sender, number, 1000)
        one = receiver.receive()
        assert one is not None
        pid = os.fork()
        if pid == 0:
            board = Board.attach(os.dup(edge.board.fd), edge.board.size)
            seen = QueueKeeper(board, edge.spec, edge.ends).statistics()
            good = (seen.sent, seen.received, seen.queued, seen.dropped) == (6, 1, 3, 2)
            good = good and len(seen.latency) == 1 and seen.bytes_received == one.nbytes
            os._exit(0 if good else 1)
        assert os.waitpid(pid, 0)[1] == 0
        ((bound, count),) = edge.keeper.statistics().latency
        assert count == 1
        assert 0 < bound < 10e9


def test_a_payload_of_forty_megabytes() -> None:
    with world() as w:
        edge = w.edge(bound=2)
        sender = w.sender(edge, cap=256 << 20)
        receiver = w.receiver(edge)
        data = message(3, 24) + os.urandom(40 << 20)
        for _ in range(4):
            sender.send("out", arrow.encode(data))
        got = drain(receiver)
        assert [bytes(d.data) == data for d in got] == [True, True]
