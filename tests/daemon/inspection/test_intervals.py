"""Statistics of arrival over a sliding window."""

from __future__ import annotations

import pytest

from dora_daemon.inspection.intervals import PARTS, Intervals

MS = 1_000_000


def test_average_extremes_and_deviation() -> None:
    intervals = Intervals("a/b", 10.0)
    for number, at in enumerate([0, 10, 30, 40, 60]):
        intervals.add(number, 1_000 * MS + at * MS)
    rate = intervals.rate(1_100 * MS)
    assert rate.messages == 5
    assert rate.average == pytest.approx(0.015)
    assert rate.minimum == pytest.approx(0.010)
    assert rate.maximum == pytest.approx(0.020)
    assert rate.deviation == pytest.approx(0.005)


def test_messages_that_were_not_read_count_for_the_average_only() -> None:
    intervals = Intervals("a/b", 10.0)
    for number in (1, 2, 12, 13):
        intervals.add(number, number * 10 * MS)
    rate = intervals.rate(140 * MS)
    assert rate.messages == 13
    assert rate.average == pytest.approx(0.010)
    assert rate.maximum == pytest.approx(0.010)


def test_a_single_message_has_no_interval() -> None:
    intervals = Intervals("a/b", 1.0)
    assert intervals.rate(0).messages == 0
    intervals.add(1, 5 * MS)
    rate = intervals.rate(5 * MS)
    assert (rate.messages, rate.average, rate.minimum, rate.deviation) == (1, None, None, None)


def test_messages_outside_of_the_window_are_ignored() -> None:
    intervals = Intervals("a/b", 1.0)
    for number in range(10):
        intervals.add(number, number * 100 * MS)
    assert intervals.rate(900 * MS).messages == 10
    assert intervals.rate(1_500 * MS).messages == 4
    assert intervals.rate(5_000 * MS).messages == 0


def test_time_of_a_restart_is_not_an_interval() -> None:
    intervals = Intervals("a/b", 100.0)
    intervals.add(1, 0)
    intervals.add(2, 10 * MS)
    intervals.interrupt()
    intervals.add(4, 5_000 * MS)
    intervals.add(5, 5_010 * MS)
    rate = intervals.rate(5_010 * MS)
    assert rate.maximum == pytest.approx(0.010)
    assert rate.average == pytest.approx(0.010)
    assert rate.messages == 4


def test_memory_is_bounded() -> None:
    intervals = Intervals("a/b", 1.0)
    for number in range(20_000):
        intervals.add(number, number * MS // 10)
    assert len(intervals._parts) <= PARTS
    assert intervals.rate(2_000 * MS).average == pytest.approx(0.0001)
