"""Order of log entries of several machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, strategies as st

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.logs.log_lines import EntryPrinter
from dora_cli.logs.remote import LogReader, MergedLogs, TimeOrder
from dora_config.protocol.control import (
    DataflowList,
    LogLines,
    LogsEnd,
    ReadLogs,
)
from dora_config.protocol.dataflow import LogFilter
from dora_config.protocol.runner_events import LogLine


def entry(at: float, msg: str = "") -> LogLine:
    ts = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return LogLine(ts=ts, level="info", node="n", message=msg)


def times(entries: list[LogLine]) -> list[float]:
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
    assert [one.message for one in order.due(0.0)] == ["a", "b", "c"]
    order.add([entry(2, "d")], now=0.0)
    assert [one.message for one in order.rest()] == ["d"]


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


def lines(daemon: str, *at: float) -> LogLines:
    texts = (
        f'{{"ts":"{entry(one).ts}","level":"info","node":"{daemon}","msg":"{one:g}"}}' for one in at
    )
    return LogLines(daemon=daemon, stream=1, lines=tuple(texts), reading=("a", "b"))


def test_a_daemon_that_read_its_past_earlier_than_another_is_in_order() -> None:
    """Its lines in between arrive with the first new ones."""
    frames = iter([(1, lines("a", 9.8, 10.2)), (1, LogsEnd())])
    past = (lines("a", 1.0, 9.7), lines("b", 2.0, 9.9, 10.0))

    def follow(_: ReadLogs, show: Callable[[LogLines], None]) -> LogsEnd:
        for one in past:
            show(one)
        return LogsEnd()

    streams = SimpleNamespace(send=lambda _: 1, next_frame=lambda _: next(frames))
    client = cast(
        CoordinatorClient,
        SimpleNamespace(follow=follow, request=lambda _: DataflowList(), streams=streams),
    )
    printed: list[str] = []

    def show(entries: Iterable[LogLine]) -> None:
        printed.extend(one.message for one in entries)

    one = SimpleNamespace(print=show, print_one=lambda entry: show([entry]))
    printer = cast(EntryPrinter, one)
    reader = LogReader(ReadLogs(dataflow="u"), printer, one_node=False)
    reader.read_past(client, follow=True)
    assert printed == ["1", "2"]
    reader.follow(client)
    assert printed == ["1", "2", "9.7", "9.8", "9.9", "10", "10.2"]


def test_lines_are_printed_as_they_arrive() -> None:
    printed: list[str] = []
    seen: list[list[str]] = []
    past = (
        lines("a", 1.0, 4.0),
        lines("b", 2.0, 3.0),
        lines("b", 5.0).model_copy(update={"reading": ("b",)}),
    )

    def follow(_: ReadLogs, show: Callable[[LogLines], None]) -> LogsEnd:
        for one in past:
            show(one)
            seen.append(list(printed))
        return LogsEnd()

    client = cast(CoordinatorClient, SimpleNamespace(follow=follow))
    printer = cast(EntryPrinter, SimpleNamespace(print_one=lambda one: printed.append(one.message)))
    LogReader(ReadLogs(dataflow="u"), printer, one_node=False).read_past(client, follow=False)
    assert seen == [[], ["1", "2", "3"], ["1", "2", "3", "4", "5"]]
    del printed[:], seen[:]
    tail = ReadLogs(dataflow="u", filter=LogFilter(tail=2))
    LogReader(tail, printer, one_node=False).read_past(client, follow=False)
    assert (seen, printed) == ([[], [], []], ["4", "5"])


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=12).map(sorted), min_size=1, max_size=4),
    st.randoms(),
)
def test_merged_logs_are_in_order_and_complete(logs: list[list[int]], chance: Random) -> None:
    merged, shown = MergedLogs(), list[float]()
    left = {str(index): list(log) for index, log in enumerate(logs)}
    while any(left.values()):
        daemon = chance.choice([name for name, log in left.items() if log])
        count = chance.randint(1, len(left[daemon]))
        chunk, left[daemon] = left[daemon][:count], left[daemon][count:]
        reading = [name for name, log in left.items() if log or name == daemon]
        shown += times(merged.add(daemon, [entry(at) for at in chunk], reading))
    assert shown + times(merged.rest()) == sorted(at for log in logs for at in log)
