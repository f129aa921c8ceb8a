"""Events to a slow reader: in order, bounded, with a count of dropped lines."""

from __future__ import annotations

import threading

import anyio
import pytest
from support.waiting import wait_until_async

from dora_config.protocol.runner_events import (
    DataflowStarted,
    DataflowStopping,
    LogLine,
    LogLinesDropped,
    RunnerState,
    RunOutput,
)
from dora_daemon.runner.logs.event_queue import EventQueue
from dora_daemon.runner.logs.logs import OutputGate


def line(number: int) -> LogLine:
    return LogLine(ts="", level="info", message=str(number))


def test_everything_arrives_in_order() -> None:
    received: list[RunOutput] = []
    events = EventQueue(received.append)
    sent = [line(n) for n in range(1000)]
    for event in sent:
        events.put(event)
    events.close()
    assert received == sent


def test_stuck_reader_loses_only_lines() -> None:
    gate = threading.Event()
    received: list[RunOutput] = []

    def slow(event: RunOutput) -> None:
        gate.wait(10)
        received.append(event)

    events = EventQueue(slow, max_lines=10)
    for number in range(100):
        events.put(line(number))
    events.put(RunnerState(phase="ready"))
    events.put(DataflowStarted(dataflow_id="x"))
    gate.set()
    events.close()
    lines = [e for e in received if isinstance(e, LogLine)]
    shed = [e.count for e in received if isinstance(e, LogLinesDropped)]
    assert len(lines) + sum(shed) == 100
    assert 5 <= len(lines) <= 11
    assert lines[-1].message == "99"  # the end is what is worth most
    assert [e.kind for e in received[-3:]] == ["log", "state", "dataflow_started"]


def test_many_lines_are_summarized() -> None:
    read, received = threading.Semaphore(0), threading.Semaphore(0)
    gaps: list[LogLinesDropped] = []

    def slow(event: RunOutput) -> None:
        read.acquire(timeout=10)
        if isinstance(event, LogLinesDropped):
            gaps.append(event)
        received.release()

    events = EventQueue(slow, max_lines=100)
    for number in range(1000):
        for part in range(3):  # three lines come for each that is read
            events.put(line(3 * number + part))
        read.release()
        assert received.acquire(timeout=10)
    read.release(200)
    events.close()
    total = sum(gap.count for gap in gaps)
    assert total > 1000
    assert len(gaps) <= total // 50


def test_a_reader_that_never_returns_is_abandoned() -> None:
    gate = threading.Event()

    def stuck(event: RunOutput) -> None:
        gate.wait(10)

    events = EventQueue(stuck)
    events.put(line(1))
    events.close(timeout=0.05)
    gate.set()


def test_what_the_reader_raises_comes_out_at_the_end() -> None:
    def broken(event: RunOutput) -> None:
        raise ValueError("no ink")

    events = EventQueue(broken)
    events.put(line(1))
    events.put(line(2))
    with pytest.raises(ValueError, match="no ink"):
        events.close()


def test_closed_pipe() -> None:
    def gone(event: RunOutput) -> None:
        raise BrokenPipeError

    events = EventQueue(gone)
    events.put(line(1))
    events.close()


def test_without_a_listener() -> None:
    events = EventQueue(None)
    events.put(line(1))
    events.close()


def test_error_of_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    events = EventQueue(lambda event: None)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        events.put(line(1))
    events.close()


async def _puts(events: EventQueue, gate: OutputGate, count: int) -> int:
    """Put lines as long as the gate is open; the number of those that went in."""
    for number in range(count):
        if not gate.is_open:
            return number
        events.put(line(number))
    return count


def test_a_gate_is_shut_while_many_lines_wait_and_no_line_is_shed() -> None:
    async def scenario() -> None:
        gate, reads = OutputGate(), threading.Semaphore(0)
        received: list[RunOutput] = []

        def slow(event: RunOutput) -> None:
            reads.acquire(timeout=10)
            received.append(event)

        events = EventQueue(slow, gate=gate, held_lines=10)
        entered = await _puts(events, gate, 100)
        assert 10 <= entered <= 11
        opened = anyio.Event()
        gate.when_open(opened.set)
        reads.release(3)
        await wait_until_async(lambda: len(received) == 3, what="three lines")
        assert not gate.is_open  # more than half of the lines still wait
        reads.release(100)
        with anyio.fail_after(10):
            await opened.wait()
        events.close()
        assert [event.message for event in received if isinstance(event, LogLine)] == [
            str(number) for number in range(entered)
        ]

    anyio.run(scenario)


def test_a_stuck_reader_does_not_hold_back_nodes_that_stop() -> None:
    async def scenario() -> None:
        gate, go_on = OutputGate(), threading.Event()
        received: list[RunOutput] = []

        def stuck(event: RunOutput) -> None:
            go_on.wait(10)
            received.append(event)

        events = EventQueue(stuck, gate=gate, held_lines=10, stopping_lines=20, max_lines=30)
        await _puts(events, gate, 100)
        assert not gate.is_open
        events.put(DataflowStopping(reason="signal SIGINT", grace=10.0))
        assert gate.is_open
        assert await _puts(events, gate, 100) < 100
        await wait_until_async(lambda: gate.is_open, what="the gate to stay open")
        assert await _puts(events, gate, 100) == 100
        go_on.set()
        events.close()
        assert any(isinstance(event, LogLinesDropped) for event in received)  # still bounded

    anyio.run(scenario)


def test_a_failed_reader_does_not_hold_back_output() -> None:
    async def scenario() -> None:
        gate = OutputGate()

        def gone(event: RunOutput) -> None:
            raise BrokenPipeError

        events = EventQueue(gone, gate=gate, held_lines=10)
        await _puts(events, gate, 11)
        await wait_until_async(lambda: gate.is_open, what="the gate to be opened")
        assert await _puts(events, gate, 100) == 100
        events.close()

    anyio.run(scenario)
