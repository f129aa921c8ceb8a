"""Signal handlers during a call of a node: they may close it, or raise while the call waits."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
from support.fake_runner import FakeRunner, fake_runner
from support.simulation.stepping import Raised, Steps, raise_here
from support.waiting import is_in, wait_until

from dora_node_api import Node, NodeInterrupted
from dora_node_api.transport.shared.interruption import Integrity

Open = Callable[[str], Node]


class Interrupted(Exception):
    """Raised by the signal handler."""


def interrupt() -> None:
    raise Interrupted


@contextmanager
def signal_once(
    condition: Callable[[], object], what: str, handle: Callable[[], object] = interrupt
) -> Iterator[None]:
    """Send this thread a signal, whose handler raises or as given, when the condition is true."""

    def handler(_signal: int, _frame: object) -> None:
        handle()

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
    main = threading.get_ident()
    for number in range(20):
        with (
            signal_once(lambda: is_in(main, "Waiter.wait"), "next waits"),
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


def send_raw(node: Node) -> None:
    with node.send_output_raw("out", 1) as buffer:
        memoryview(buffer)[0] = 1


CALLS: dict[str, Callable[[Node], object]] = {
    "send": lambda node: node.send_output("out", b"\x01"),
    "send large": lambda node: node.send_output("out", b"\x01" * (5 << 20)),
    "send raw": send_raw,
    "next": lambda node: node.next(timeout=20),
    "try_recv": Node.try_recv,
}
USES: dict[str, Callable[[Node], object]] = {
    "send": lambda node: node.send_output("out", b"\x07"),
    "raw": lambda node: node.send_output_raw("out", 1),
    "next": lambda node: node.next(timeout=0),
    "try_recv": Node.try_recv,
    "close_outputs": lambda node: node.close_outputs(()),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_that_interrupts_a_call_may_not_use_the_node(
    runner: FakeRunner, open_node: Open, call: str
) -> None:
    runner.connect("a/out", "b/in", queue_size=50)
    runner.connect("c/out", "a/in", queue_size=50)
    a, b, c = open_node("a"), open_node("b"), open_node("c")
    refused = set()
    for stop in count(1):
        use = list(USES)[stop % len(USES)]

        def handle(use: str = use) -> None:
            with pytest.raises(RuntimeError, match="set a flag in the handler"):
                USES[use](a)
            refused.add(use)

        c.send_output("out", b"\x02")
        for _ in b.drain():
            pass
        steps = Steps(("dora_node_api/",), stop, handle, signals=True)
        with suppress(pytest.fail.Exception):  # before the call has begun, or after it
            steps.run(lambda: CALLS[call](a))
        if steps.count < stop:
            break
    assert refused == set(USES)
    a.send_output("out", b"\x09")
    assert [e["value"][0].as_py() for e in b.drain() if e["type"] == "INPUT"][-1] == 9


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_may_close_the_node_at_every_step(
    runner: FakeRunner, open_node: Open, call: str
) -> None:
    runner.connect("a/out", "b/in", queue_size=50)
    runner.connect("c/out", "a/in", queue_size=50)
    b, c = open_node("b"), open_node("c")
    for stop in count(1, 3):
        a = open_node("a")
        c.send_output("out", b"\x02")
        steps = Steps(("dora_node_api/",), stop, a.close, signals=True)
        with suppress(RuntimeError):  # it was closed before the call began
            steps.run(lambda a=a: CALLS[call](a))  # type: ignore[misc]
        a.close()
        wait_until(lambda: runner.nodes["a"].control is None, what=f"the end, at {steps.at}")
        runner.nodes["a"].incarnation += 1000
        for _ in b.drain():
            pass
        if steps.count < stop:
            break
    assert stop > 10


def test_a_handler_closes_a_node_that_waits(pair: tuple[Node, Node]) -> None:
    a, b = pair
    main = threading.get_ident()

    def waits_for_room() -> bool:
        return sys._current_frames()[main].f_code.co_name == "_wait_for_room"

    a.send_output("out", b"\x01")
    with signal_once(waits_for_room, "the send waits", a.close):
        a.send_output("out", b"\x02")
    assert b.next(timeout=60)["value"].to_pylist() == [1]  # type: ignore[index]
    with signal_once(lambda: is_in(main, "Waiter.wait"), "next waits", b.close):
        assert b.next(timeout=60) is None


def descriptors() -> set[int]:
    gc.collect()  # a mapping has a descriptor, and goes with its last user
    names = os.listdir("/proc/self/fd")
    return {int(name) for name in names if Path("/proc/self/fd", name).exists()}


@pytest.mark.parametrize("call", CALLS)
def test_a_node_can_be_closed_whatever_a_handler_has_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A handler raises: the node continues, or its next call raises NodeInterrupted."""
    before = descriptors()
    with fake_runner(tmp_path) as runner:
        outcomes = set(_cut_everywhere(runner, monkeypatch, CALLS[call]))
    assert "usable" in outcomes
    for lost in descriptors() - before:  # of the message that was being received
        assert call in ("next", "try_recv")
        os.close(lost)


def _cut_everywhere(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, call: Callable[[Node], object]
) -> Iterator[str]:
    def open_node(name: str) -> Node:
        for variable, value in runner.environment(name).items():
            monkeypatch.setenv(variable, value)
        return Node()

    def install(node_id: str, *, has_terminal: bool) -> None:
        """Leave the logging of the tests alone."""

    monkeypatch.setattr("dora_node_api.logging.logging_bridge.install", install)
    runner.connect("a/out", "b/in", queue_size=50)
    runner.connect("c/out", "a/in", queue_size=50)
    b, c = open_node("b"), open_node("c")
    for stop in count(1, 7):
        a = open_node("a")
        c.send_output("out", b"\x02")
        steps = Steps(("dora_node_api/",), stop, raise_here, signals=True)
        with suppress(Raised):
            steps.run(lambda a=a: call(a))  # type: ignore[misc]
        try:
            a.send_output("out", b"\x03")
            a.try_recv()
            yield "usable"
        except NodeInterrupted:
            yield "refused"
        a.close()
        wait_until(lambda: runner.nodes["a"].control is None, what=f"the end, at {steps.at}")
        runner.nodes["a"].incarnation += 1000
        for _ in b.drain():
            pass
        if steps.count < stop:
            break
    b.close()
    c.close()
