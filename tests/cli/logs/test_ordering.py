"""Order of log entries of several machines."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from dora_cli.logs.log_lines import LogEntry
from dora_cli.logs.remote import TimeOrder


def entry(at: float, msg: str = "") -> LogEntry:
    ts = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return LogEntry(ts, "info", "n", "stdout", msg)


def times(entries: list[LogEntry]) -> list[float]:
    return [one.time for one in entries]


def test_an_entry_waits_for_older_ones() -> None:
    order = TimeOrder(0.5)
    order.add([entry(20)], now=1.0)
    assert order.due(1.4) == []
    assert order.until_due(1.4) == pytest.approx(0.1)
    order.add([entry(10), entry(30)], now=1.4)
    assert times(order.due(1.5)) == [10, 20]
    assert order.until_due(1.5) is not None
    assert times(order.due(1.9)) == [30]
    assert order.until_due(2.0) is None


def test_a_wrong_clock_delays_no_other_machine() -> None:
    order = TimeOrder(0.5)
    order.add([entry(1000)], now=0.0)
    for step in range(1, 10):
        order.add([entry(step)], now=step / 10)
    assert times(order.due(0.5))[-1] == 1000


def test_entries_of_the_same_time_keep_their_order() -> None:
    order = TimeOrder(0.0)
    order.add([entry(1, "a"), entry(1, "b")], now=0.0)
    order.add([entry(1, "c")], now=0.0)
    assert [one.msg for one in order.due(0.0)] == ["a", "b", "c"]
    order.add([entry(2, "d")], now=0.0)
    assert [one.msg for one in order.rest()] == ["d"]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=60))
def test_nothing_is_lost_or_waits_longer_than_the_hold(steps: list[tuple[int, int]]) -> None:
    order, now, added, shown = TimeOrder(2.0), 0.0, 0, 0
    for at, pause in steps:
        order.add([entry(at)], now)
        added += 1
        now += pause
        due = order.due(now)
        assert times(due) == sorted(times(due))
        shown += len(due)
        left = order.until_due(now)
        assert left is None or 0.0 < left <= 2.0
    assert shown + len(order.rest()) == added
