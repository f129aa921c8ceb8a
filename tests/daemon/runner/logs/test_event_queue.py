"""Events to a slow reader: in order, bounded, what is shed is counted."""

from __future__ import annotations

import threading

import pytest

from dora_config.protocol.runner import (
    DataflowStarted,
    LinesShed,
    LogLine,
    NodesReady,
    RunnerEvent,
)
from dora_daemon.runner.logs.event_queue import Outlet


def line(number: int) -> LogLine:
    return LogLine(ts="", level="info", message=str(number))


def test_everything_arrives_in_order() -> None:
    heard: list[RunnerEvent] = []
    outlet = Outlet(heard.append)
    sent = [line(n) for n in range(1000)]
    for event in sent:
        outlet.put(event)
    outlet.close()
    assert heard == sent


def test_a_reader_that_is_stuck_holds_nobody_up_and_loses_only_lines() -> None:
    gate = threading.Event()
    heard: list[RunnerEvent] = []

    def slow(event: RunnerEvent) -> None:
        gate.wait(10)
        heard.append(event)

    outlet = Outlet(slow, most_lines=10)
    for number in range(100):
        outlet.put(line(number))
    outlet.put(NodesReady())
    outlet.put(DataflowStarted(dataflow_id="x"))
    gate.set()
    outlet.close()
    lines = [e for e in heard if isinstance(e, LogLine)]
    shed = [e.count for e in heard if isinstance(e, LinesShed)]
    assert len(lines) + sum(shed) == 100
    assert outlet.total_shed == sum(shed)
    assert 5 <= len(lines) <= 11
    assert lines[-1].message == "99"  # the end is what is worth most
    assert [e.kind for e in heard[-3:]] == ["log", "nodes_ready", "dataflow_started"]


def test_lines_that_come_too_fast_for_long_are_told_in_few_words() -> None:
    read, heard = threading.Semaphore(0), threading.Semaphore(0)
    gaps: list[RunnerEvent] = []

    def slow(event: RunnerEvent) -> None:
        read.acquire(timeout=10)
        if isinstance(event, LinesShed):
            gaps.append(event)
        heard.release()

    outlet = Outlet(slow, most_lines=100)
    for number in range(1000):
        for part in range(3):  # three lines come for each that is read
            outlet.put(line(3 * number + part))
        read.release()
        assert heard.acquire(timeout=10)
    read.release(200)
    outlet.close()
    assert outlet.total_shed > 1000
    assert len(gaps) <= outlet.total_shed // 50


def test_a_reader_that_never_comes_back_is_left() -> None:
    gate = threading.Event()

    def stuck(event: RunnerEvent) -> None:
        gate.wait(10)

    outlet = Outlet(stuck)
    outlet.put(line(1))
    outlet.close(timeout=0.05)
    gate.set()


def test_what_the_reader_raises_comes_out_at_the_end() -> None:
    def broken(event: RunnerEvent) -> None:
        raise ValueError("no ink")

    outlet = Outlet(broken)
    outlet.put(line(1))
    outlet.put(line(2))
    with pytest.raises(ValueError, match="no ink"):
        outlet.close()


def test_a_closed_pipe_is_no_error() -> None:
    def gone(event: RunnerEvent) -> None:
        raise BrokenPipeError

    outlet = Outlet(gone)
    outlet.put(line(1))
    outlet.close()


def test_nobody_listens() -> None:
    outlet = Outlet(None)
    outlet.put(line(1))
    outlet.close()


def test_a_thread_that_cannot_be_started_is_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    outlet = Outlet(lambda event: None)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        outlet.put(line(1))
    outlet.close()
