"""Exceptions that a signal handler raises while a call of a node waits lose nothing."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.fake_runner import FakeRunner
from support.waiting import wait_until

from dora_node_api import Node, NodeInterrupted
from dora_node_api.transport.shared.integrity import Integrity

Open = Callable[[str], Node]


class Interrupted(Exception):
    """Raised by the signal handler."""


@contextmanager
def signal_once(condition: Callable[[], object], what: str) -> Iterator[None]:
    """Send this thread a signal, whose handler raises, when the condition is true."""

    def handler(_signal: int, _frame: object) -> None:
        raise Interrupted

    target = threading.get_ident()

    def send() -> None:
        wait_until(condition, what=what)
        signal.pthread_kill(target, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def pair(runner: FakeRunner, open_node: Open) -> tuple[Node, Node]:
    """Nodes `a` and `b`, connected by a/out -> b/in with backpressure."""
    runner.connect("a/out", "b/in", queue_size=1, queue_policy="backpressure")
    return open_node("a"), open_node("b")


def test_next_continues_after_a_handler_raised(pair: tuple[Node, Node]) -> None:
    a, b = pair
    waits = b._backend._connection.words  # type: ignore[attr-defined]
    for number in range(20):
        with (
            signal_once(lambda: waits.waiting, "next waits"),
            pytest.raises(Interrupted),
        ):
            b.next(timeout=60)
        a.send_output("out", bytes([number]))
        event = b.next(timeout=60)
        assert event is not None
        assert event["value"].to_pylist() == [number]


def test_a_blocked_send_can_be_given_up(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    main = threading.get_ident()

    def waits_for_room() -> bool:
        """Return whether the send sleeps: looks at the queue in between are not waits."""
        return sys._current_frames()[main].f_code.co_name == "_wait_for_room"

    for _ in range(5):
        a.send_output("out", b"\x01")
        with (
            signal_once(waits_for_room, "the send waits"),
            pytest.raises(Interrupted),
        ):
            a.send_output("out", b"\x02")
        assert [event["value"].to_pylist() for event in b.drain()] == [[1]]
    a.send_output("out", b"\x03")
    assert [event["value"].to_pylist() for event in b.drain()] == [[3]]
    assert a._backend._connection.sender.held_bytes() == {}  # type: ignore[attr-defined]


def test_a_node_is_unusable_after_a_change_was_cut(pair: tuple[Node, Node]) -> None:
    a, b = pair
    integrity: Integrity = a._backend._connection.integrity  # type: ignore[attr-defined]
    with pytest.raises(Interrupted), integrity:
        raise Interrupted
    calls: list[Callable[[], object]] = [
        lambda: a.next(timeout=0),
        a.try_recv,
        lambda: a.send_output("out", b"x"),
        lambda: a.send_output_raw("out", 3),
    ]
    for call in calls:
        with pytest.raises(NodeInterrupted, match="restart policy"):
            call()
    a.close()
    assert b.try_recv() is None
