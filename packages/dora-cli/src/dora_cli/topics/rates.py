"""Output of `dora topic hz`: a live page on a terminal, else a table or JSON every second."""

from __future__ import annotations

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
    """Show rates until Ctrl-C, until ``duration`` has passed, or until the dataflow has ended."""
    table = style is options.TableFormat.TABLE
    live = table and duration is None and sys.stdin.isatty() and sys.stdout.isatty()
    rates: dict[str, TopicRate] = {}
    try:
        with screen() if live else nullcontext() as terminal:
            _follow(watch(client, request, duration, tick=0.2), rates, terminal, duration, style)
    except KeyboardInterrupt:
        pass  # the normal end
    if duration is not None or live:
        _print(rates.values(), style)


def _follow(
    updates: Iterator[TopicUpdate | None],
    rates: dict[str, TopicRate],
    terminal: Screen | None,
    duration: float | None,
    style: options.TableFormat,
) -> None:
    due = time.monotonic() + EVERY
    for update in updates:
        if update is not None:
            rates.update((rate.name, rate) for rate in update.rates)
        if terminal is not None:
            terminal.show(page(rates.values()))
            if terminal.key(0.0) in ("q", "\x1b"):
                return
        elif duration is None and rates and time.monotonic() >= due:
            due = time.monotonic() + EVERY
            _print(rates.values(), style)


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
