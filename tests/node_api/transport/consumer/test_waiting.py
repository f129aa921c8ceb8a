"""Waiting: what wakes it, for how long it sleeps, and when it polls."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.queues import Edge, Segments, drain, numbers, send
from support.waiting import PATIENCE

from dora_node_api.errors import NodeForked
from dora_node_api.transport.consumer import waiting
from dora_node_api.transport.consumer.poll_policy import POLL_NS, PollPolicy
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board


@contextmanager
def inputs(
    number: int, *, remote: bool = False
) -> Iterator[tuple[list[Sender], list[Receiver], Waiter]]:
    board, segments, waiter = Board.create(8 << 20), Segments(), Waiter()
    edges = [Edge(board, segments, queue=n + 1, remote=remote) for n in range(number)]
    senders = [edge.sender(n + 1) for n, edge in enumerate(edges)]
    receivers = [edge.receiver() for edge in edges]
    for receiver in receivers:
        waiter.add(receiver)
    try:
        yield senders, receivers, waiter
    finally:
        waiter.close()
        for number_, edge in enumerate(edges):
            senders[number_].close()
            receivers[number_].close()
            edge.close()
        board.close()
        segments.close()


@pytest.mark.parametrize("number", [1, 3, 40])
def test_wait_returns_the_inputs_with_messages(number: int) -> None:
    with inputs(number) as (senders, receivers, waiter):
        assert waiter.wait(0) == []
        assert waiter.wait(0.001) == []
        for index in {0, number - 1}:
            send(senders[index], index)
        ready = waiter.wait(5)
        assert {receivers.index(r) for r in ready if isinstance(r, Receiver)} == {0, number - 1}
        for receiver in receivers:
            drain(receiver)
        assert waiter.wait(0) == []


def test_a_message_wakes_a_sleeping_waiter() -> None:
    with inputs(1) as (senders, receivers, waiter):
        timer = threading.Timer(0.05, lambda: send(senders[0], 7))
        timer.start()
        assert waiter.wait() == receivers
        assert numbers(drain(receivers[0])) == [7]
        timer.join()


def test_other_descriptors_are_seen_even_while_messages_never_end() -> None:
    with inputs(1) as (senders, receivers, waiter):
        read, write = os.pipe()
        waiter.add_fd(read)
        assert waiter.wait(0) == []
        os.write(write, b"x")
        assert waiter.wait(1) == [read]
        send(senders[0], 1)
        deadline = time.monotonic() + PATIENCE
        while read not in waiter.wait(1):
            assert time.monotonic() < deadline
        os.close(write)
        os.read(read, 1)
        drain(receivers[0])
        assert waiter.wait(1) == [read]  # the other end has gone, which its owner must see
        waiter.remove_fd(read)
        waiter.remove_fd(read)
        os.close(read)
        assert waiter.wait(0) == []


def test_a_descriptor_whose_other_end_has_gone_stays_watched() -> None:
    with inputs(1) as (_, _, waiter):
        read, write = os.pipe()
        high = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, 300)  # small integers are shared objects
        os.close(read)
        waiter.add_fd(high)
        os.close(write)
        assert [waiter.wait(1), waiter.wait(1)] == [[high], [high]]
        waiter.remove_fd(high)
        os.close(high)


def test_a_held_record_counts_as_ready() -> None:
    with inputs(1) as (senders, receivers, waiter):
        send(senders[0], 0, protected=True)
        send(senders[0], 1)
        send(senders[0], 2, protected=True)
        send(senders[0], 3)
        drained = [receivers[0].receive() for _ in range(3)]
        assert all(drained)
        assert receivers[0].holds_record
        assert waiter.wait(0) == receivers
        assert receivers[0].pending() == 1


def test_removed_inputs_are_not_returned() -> None:
    with inputs(2) as (senders, receivers, waiter):
        send(senders[0], 1)
        waiter.remove(receivers[0])
        assert waiter.wait(0) == []
        send(senders[1], 1)
        assert waiter.wait(1) == [receivers[1]]


@pytest.mark.parametrize("timeout", [0.0003, 0.002, 0.0255])
def test_timeouts_are_kept(timeout: float) -> None:
    with inputs(1) as (_, _, waiter):
        took = []
        for _ in range(500):
            start = time.perf_counter()
            assert waiter.wait(timeout) == []
            took.append(time.perf_counter() - start)
            if len(took) > 20 and min(took) < timeout + 0.001:
                break
        assert min(took) >= timeout
        assert min(took) < timeout + 0.001  # no rounding to milliseconds


def test_a_short_wait_with_many_descriptors_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_SELECT_FDS", 0)
    with inputs(1) as (_, _, waiter):
        start, begun = time.perf_counter(), time.thread_time()
        for _ in range(50):
            assert waiter.wait(0.0018) == []
        assert time.perf_counter() - start >= 0.09
        assert time.thread_time() - begun < 0.045


def test_an_exception_from_a_handler_passes_through() -> None:
    class Stop(Exception):
        pass

    def handler(*_: object) -> None:
        raise Stop

    with inputs(1) as (senders, receivers, waiter):

        def interrupted_wait() -> None:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            waiter.wait()

        before = signal.signal(signal.SIGALRM, handler)
        try:
            with pytest.raises(Stop):
                interrupted_wait()
        finally:
            signal.signal(signal.SIGALRM, before)
        send(senders[0], 1)
        assert waiter.wait(5) == receivers


def test_a_forked_child_may_not_wait() -> None:
    with inputs(1) as (_, _, waiter):
        pid = os.fork()
        if pid == 0:
            try:
                waiter.wait(0)
            except NodeForked:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0


def test_asyncio_can_watch_it() -> None:
    with inputs(2) as (senders, receivers, waiter):

        async def receive() -> list[int]:
            loop = asyncio.get_running_loop()
            woken = asyncio.Event()
            loop.add_reader(waiter.fileno(), woken.set)
            loop.call_later(0.02, send, senders[1], 42)
            await asyncio.wait_for(woken.wait(), 5)
            loop.remove_reader(waiter.fileno())
            ready = waiter.wait(0)
            assert ready == [receivers[1]]
            return numbers(drain(receivers[1]))

        assert asyncio.run(receive()) == [42]


def test_wait_polls_as_its_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[int] = []
    monkeypatch.setattr(waiting, "usable_cores", lambda: 2.0)
    original = Waiter._poll

    def counted(
        self: Waiter, start: int, max_ns: int, timeout: float | None
    ) -> list[Receiver | int]:
        polls.append(max_ns)
        return original(self, start, max_ns, timeout)

    monkeypatch.setattr(Waiter, "_poll", counted)
    with inputs(1) as (_, _, waiter):
        for _ in range(5):
            waiter.wait(0.002)
        assert polls == []
        assert waiter.policy is not None
        waiter.policy.credit = 3
        for _ in range(10):
            waiter.wait(0.002)
        assert polls == [POLL_NS, POLL_NS]  # in vain, so no more


@pytest.mark.parametrize("remote", [False, True])
def test_only_an_answer_from_another_machine_is_polled_for_longer(remote: bool) -> None:
    with inputs(2, remote=remote) as (_, receivers, waiter):
        waiter.policy = policy = PollPolicy()
        waiter.wait(0, answer=True)
        assert policy.answer is remote
        waiter.wait(0)
        assert not policy.answer
        for receiver in receivers:
            waiter.remove(receiver)
        waiter.wait(0, answer=True)
        assert not policy.answer


def test_a_poll_goes_on_after_other_processes_had_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with inputs(1) as (senders, receivers, waiter):
        waiter.policy = policy = PollPolicy()
        policy.credit = 2
        clock = [1_000_000_000]
        yields = []

        def others_run() -> None:
            clock[0] += POLL_NS // 4
            yields.append(clock[0])
            if len(yields) == 3:
                send(senders[0], 7)

        monkeypatch.setattr(waiting, "_monotonic_ns", lambda: clock[0])
        monkeypatch.setattr(os, "sched_yield", others_run)
        assert waiter.wait() == receivers
        assert policy.credit == 3  # found without a sleep


def test_a_wake_up_makes_an_input_ready() -> None:
    with inputs(2) as (senders, receivers, waiter):
        # The counter runs ahead of the pipe for a moment: nothing is there yet.
        receivers[0]._words[0] += 1
        assert receivers[0].receive() is None
        assert not receivers[0].ready()
        receivers[0]._words[0] -= 1
        send(senders[0], 1)
        assert waiter.wait(1) == [receivers[0]]
        assert receivers[0].ready()


def test_wait_never_polls_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "usable_cores", lambda: 1.5)
    assert Waiter().policy is None
