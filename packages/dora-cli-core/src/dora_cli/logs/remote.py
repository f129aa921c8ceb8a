"""Shows logs that daemons store, requested through the coordinator."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import (
    CoordinatorUnavailable,
    CoordinatorUnreachable,
    RequestFailed,
)
from dora_cli.coordinator.options import connect_now
from dora_cli.logs.log_lines import EntryPrinter, parse_log_line
from dora_config.protocol.control import (
    DescribeDataflow,
    ListDataflows,
    LogLines,
    LogsEnd,
    ReadLogs,
)
from dora_config.protocol.dataflow import LogFilter, LogPosition
from dora_config.protocol.runner_events import LogLine

RETRY = 1.0
"""Seconds between attempts to follow again."""
STORE_LOST = 60.0
"""Seconds after the loss of a coordinator in which it may not find the dataflow yet."""

HOLD = 0.5
"""Seconds for which an entry waits for older ones; a daemon reads its files every 0.2 s."""


class TimeOrder:
    """Delays entries by a fixed time and returns them in order of time."""

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._waiting: list[tuple[float, float, LogLine]] = []
        """Time of the entry, when it is due, and the entry."""

    def add(self, entries: Iterable[LogLine], now: float) -> None:
        self._waiting += [(entry.time, now + self._hold, entry) for entry in entries]

    def until_due(self, now: float) -> float | None:
        """Return the seconds until an entry is due; None if none waits."""
        if not self._waiting:
            return None
        return max(0.0, min(due for _, due, _ in self._waiting) - now)

    def due(self, now: float) -> list[LogLine]:
        """Return the entries that are due and all older ones, oldest first.

        The clock of a machine may be wrong, so an entry is returned at the latest when it is due.
        """
        newest = max((at for at, due, _ in self._waiting if due <= now), default=None)
        if newest is None:
            return []
        return self._take(newest)

    def rest(self) -> list[LogLine]:
        """Return everything that waits, oldest first."""
        return self._take(float("inf"))

    def _take(self, newest: float) -> list[LogLine]:
        taken = [one for one in self._waiting if one[0] <= newest]
        self._waiting = [one for one in self._waiting if one[0] > newest]
        taken.sort(key=lambda one: one[0])
        return [entry for _, _, entry in taken]


class MergedLogs:
    """Merges the logs of several daemons, each in order of time, as they arrive; pure."""

    def __init__(self) -> None:
        self._waiting: list[LogLine] = []
        self._newest: dict[str, float] = {}

    def add(self, daemon: str, entries: Sequence[LogLine], reading: Iterable[str]) -> list[LogLine]:
        """Return, oldest first, the entries that are older than all further ones.

        ``reading``: daemons that have not sent all their lines.
        """
        self._waiting += entries
        newest = max((entry.time for entry in entries), default=-inf)
        self._newest[daemon] = max(newest, self._newest.get(daemon, -inf))
        return self._until(min((self._newest.get(one, -inf) for one in reading), default=inf))

    def rest(self) -> list[LogLine]:
        return self._until(inf)

    def _until(self, time: float) -> list[LogLine]:
        self._waiting.sort(key=lambda entry: entry.time)
        count = bisect_right(self._waiting, time, key=lambda entry: entry.time)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken


def show(
    dataflow: str | None,
    node: str | None,
    wanted: LogFilter,
    printer: EntryPrinter,
    *,
    follow: bool,
    addr: str | None,
    port: int | None,
) -> bool:
    """Print the logs; return False, without output, if no coordinator answers."""
    try:
        client = connect_now(addr, port, or_here=True)
    except CoordinatorUnreachable:
        return False
    try:
        with client:
            found = client.request(DescribeDataflow(dataflow=dataflow))
            nodes = (node,) if node is not None else ()
            request = ReadLogs(
                dataflow=found.uuid,
                nodes=nodes,
                filter=wanted,
            )
            reader = LogReader(request, printer, one_node=len(nodes or found.daemons) == 1)
            follow = follow and (node is None or node in found.daemons)
            problems = reader.read_past(client, follow=follow)
            if not follow:
                for problem in problems:
                    output.warn(problem)
                return True
            reader.follow(client)
        while not reader.has_ended:
            time.sleep(RETRY)
            reader.follow_again(addr, port)
    except KeyboardInterrupt:
        if not follow:  # otherwise it is the normal end
            raise
    return True


@dataclass
class LogReader:
    """Reads the log of one dataflow once, then follows it, over several connections if needed."""

    request: ReadLogs
    printer: EntryPrinter
    one_node: bool
    has_ended: bool = False
    _positions: dict[str, LogPosition] = field(default_factory=dict)
    _problems: tuple[str, ...] = ()
    _lost_at: float = 0.0

    def __post_init__(self) -> None:
        self._order = TimeOrder(0.0 if self.one_node else HOLD)

    def read_past(self, client: CoordinatorClient, *, follow: bool) -> Sequence[str]:
        """Print the lines of all daemons by time, as they arrive; return the problems.

        ``follow``: the last ones wait, because the daemons read their files at different times.
        Of several daemons, ``tail`` chooses among the lines of all.
        """
        tail = self.request.filter.tail
        merged = MergedLogs()
        held: deque[LogLine] = deque(maxlen=tail)

        def print_settled(entries: Sequence[LogLine]) -> None:
            held.extend(entries)
            settled = held[-1].time - HOLD if follow and held else inf
            while held and held[0].time <= settled:
                self.printer.print_one(held.popleft())

        def receive(lines: LogLines) -> None:
            self._positions.update(lines.positions)
            known = merged.add(lines.daemon, _entries(lines.lines), lines.reading)
            if tail is None:
                print_settled(known)
            else:
                held.extend(known)

        answer = client.follow(self.request, receive)
        print_settled(merged.rest())
        self._order.add(held, time.monotonic())
        return answer.problems

    def follow(self, client: CoordinatorClient) -> None:
        """Print new lines until the dataflow, the request or the connection ends."""
        try:
            problems = self._follow(client)
            rows = client.request(ListDataflows()).dataflows
            mine = [row for row in rows if row.uuid == self.request.dataflow]
            self.has_ended = not mine or mine[0].ended_ago is not None
            self._warn(problems)
        except CoordinatorUnavailable as error:
            self._lost_at = time.monotonic()
            self._warn((f"{error}; waiting for it",))
        finally:
            self.printer.print(self._order.rest())

    def follow_again(self, addr: str | None, port: int | None) -> None:
        """Connect again and continue behind the last line."""
        try:
            with connect_now(addr, port, or_here=True) as client:
                self.follow(client)
        except CoordinatorUnavailable:
            return
        except RequestFailed as error:
            # a coordinator without its store finds the dataflow when its daemons have connected
            if error.code != "not_found" or time.monotonic() > self._lost_at + STORE_LOST:
                raise

    def _follow(self, client: CoordinatorClient) -> tuple[str, ...]:
        """Print new lines until the request ends; return its problems."""
        number = client.streams.send(
            self.request.model_copy(
                update={
                    "follow": True,
                    "resumes": True,
                    "after": self._positions,
                    "filter": self.request.filter.model_copy(update={"tail": None}),
                }
            )
        )
        while True:
            frame = client.streams.next_frame(self._order.until_due(time.monotonic()))
            match frame:
                case (found, LogLines() as lines) if found == number:
                    self._positions.update(lines.positions)
                    self._order.add(_entries(lines.lines), time.monotonic())
                case (found, LogsEnd(problems=problems)) if found == number:
                    return problems
                case (found, RequestFailed() as problem) if found == number:
                    raise problem
            self.printer.print(self._order.due(time.monotonic()))

    def _warn(self, problems: tuple[str, ...]) -> None:
        """Print problems that have changed."""
        for problem in problems:
            if problem not in self._problems:
                output.warn(problem)
        self._problems = problems


def _entries(lines: Sequence[str]) -> list[LogLine]:
    return [entry for entry in map(parse_log_line, lines) if entry is not None]
