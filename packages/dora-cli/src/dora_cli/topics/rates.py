"""Output of `dora topic hz`: a live page on a terminal, else a table or JSON every second.

With a duration, they are printed once, at the end.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext

from dora_cli import options, output
from dora_cli.coordinator.client import Client
from dora_cli.screen import Screen, screen
from dora_cli.topics.stream import watch
from dora_config.protocol.control import WatchTopics
from dora_config.protocol.topics import TopicRate, TopicUpdate

COLUMNS = ("TOPIC", "AVG (HZ)", "AVG (MS)", "MIN (MS)", "MAX (MS)", "STD (MS)", "MESSAGES")
EVERY = 1.0
"""Seconds between two reports without a terminal."""
DASH = "-"


def show(
    client: Client, request: WatchTopics, duration: float | None, style: options.TableFormat
) -> None:
    """Show rates for ``duration``, or until q, Escape, Ctrl-C or the end of the dataflow.

    The newest rates are printed at the end, also before an error. Raises as `watch`.
    """
    table = style is options.TableFormat.TABLE
    live = table and duration is None and sys.stdin.isatty() and sys.stdout.isatty()
    rates = NewestRates(style)
    try:
        with screen() if live else nullcontext() as terminal:
            updates = watch(client, request, duration, tick=0.2)
            if terminal is not None:
                _follow_live(updates, rates, terminal)
            else:
                _follow(updates, rates, every=EVERY if duration is None else math.inf)
    except KeyboardInterrupt:
        pass  # the normal end
    finally:
        rates.print()


class NewestRates:
    """The newest rate of each output."""

    def __init__(self, style: options.TableFormat) -> None:
        self._style = style
        self._by_name: dict[str, TopicRate] = {}
        self._changed = False

    def update(self, update: TopicUpdate | None) -> None:
        """Take the rates of an update, if there is one."""
        if update is not None and update.rates:
            self._by_name.update((rate.name, rate) for rate in update.rates)
            self._changed = True

    def all(self) -> Iterable[TopicRate]:
        """Return the rates in the order in which their outputs were first reported."""
        return self._by_name.values()

    def print(self) -> None:
        """Print all rates unless they were printed since the last update."""
        if self._changed:
            self._changed = False
            _print(self.all(), self._style)


def _follow_live(
    updates: Iterator[TopicUpdate | None], rates: NewestRates, terminal: Screen
) -> None:
    for update in updates:
        rates.update(update)
        terminal.show(page(rates.all()))
        if terminal.key(0.0) in ("q", "\x1b"):
            return


def _follow(updates: Iterator[TopicUpdate | None], rates: NewestRates, every: float) -> None:
    due = time.monotonic() + every
    for update in updates:
        rates.update(update)
        if time.monotonic() >= due:
            due = time.monotonic() + every
            rates.print()


def page(rates: Iterable[TopicRate]) -> list[str]:
    """Return the lines of the live page."""
    rows = [[str(cell) for cell in as_cells(rate)] for rate in rates]
    return ["time between messages   (q: quit)", "", *output.aligned(COLUMNS, rows).splitlines()]


def _print(rates: Iterable[TopicRate], style: options.TableFormat) -> None:
    if style is options.TableFormat.JSON:
        for rate in rates:
            output.json_line(as_json(rate))
    else:
        output.table(COLUMNS, [as_cells(rate) for rate in rates])


def as_cells(rate: TopicRate) -> list[object]:
    """Return the rate of an output as a row of :data:`COLUMNS`."""
    hertz = DASH if not rate.average else f"{1 / rate.average:.2f}"
    times = (rate.average, rate.minimum, rate.maximum, rate.deviation)
    shown = [DASH if seconds is None else f"{seconds * 1000:.2f}" for seconds in times]
    return [rate.name, hertz, *shown, rate.messages]


def as_json(rate: TopicRate) -> dict[str, object]:
    """Return the rate of an output as JSON; null where fewer than two messages arrived."""

    def milliseconds(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds * 1000, 6)

    return {
        "name": rate.name,
        "messages": rate.messages,
        "avg_hz": round(1 / rate.average, 6) if rate.average else None,
        "avg_ms": milliseconds(rate.average),
        "min_ms": milliseconds(rate.minimum),
        "max_ms": milliseconds(rate.maximum),
        "std_ms": milliseconds(rate.deviation),
    }
