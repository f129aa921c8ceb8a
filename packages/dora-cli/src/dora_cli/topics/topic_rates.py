"""What `dora topic hz` shows: live on a terminal, once a second or once elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext

from dora_cli import options, output
from dora_cli.coordinator.client import Client
from dora_cli.screen import Screen, screen
from dora_cli.topics.topic_watch import watch
from dora_config.protocol.control import WatchTopics
from dora_config.protocol.topics import TopicRate, TopicUpdate

COLUMNS = ("TOPIC", "AVG (HZ)", "AVG (MS)", "MIN (MS)", "MAX (MS)", "STD (MS)", "MESSAGES")
EVERY = 1.0
"""Seconds between two lines where there is no terminal."""
DASH = "-"


def show(
    client: Client, request: WatchTopics, duration: float | None, style: options.TableFormat
) -> None:
    """Until interrupted, until ``duration`` has passed, or the dataflow has ended."""
    table = style is options.TableFormat.TABLE
    live = table and duration is None and sys.stdin.isatty() and sys.stdout.isatty()
    rates: dict[str, TopicRate] = {}
    try:
        with screen() if live else nullcontext() as terminal:
            _follow(watch(client, request, duration, tick=0.2), rates, terminal, duration, style)
    except KeyboardInterrupt:
        pass  # how watching ends
    if duration is not None or live:
        _print(rates.values(), style)


def _follow(
    news: Iterator[TopicUpdate | None],
    rates: dict[str, TopicRate],
    terminal: Screen | None,
    duration: float | None,
    style: options.TableFormat,
) -> None:
    due = time.monotonic() + EVERY
    for piece in news:
        if piece is not None:
            rates.update((rate.name, rate) for rate in piece.rates)
        if terminal is not None:
            terminal.show(page(rates.values()))
            if terminal.key(0.0) in ("q", "\x1b"):
                return
        elif duration is None and rates and time.monotonic() >= due:
            due = time.monotonic() + EVERY
            _print(rates.values(), style)


def page(rates: Iterable[TopicRate]) -> list[str]:
    """The lines of the live view."""
    rows = [[str(cell) for cell in as_cells(rate)] for rate in rates]
    return ["time between messages   (q: quit)", "", *output.aligned(COLUMNS, rows).splitlines()]


def _print(rates: Iterable[TopicRate], style: options.TableFormat) -> None:
    if style is options.TableFormat.JSON:
        for rate in rates:
            output.json_line(as_json(rate))
    else:
        output.table(COLUMNS, [as_cells(rate) for rate in rates])


def as_cells(rate: TopicRate) -> list[object]:
    """An output as a row of :data:`COLUMNS`."""
    hertz = DASH if not rate.average else f"{1 / rate.average:.2f}"
    times = (rate.average, rate.minimum, rate.maximum, rate.deviation)
    shown = [DASH if seconds is None else f"{seconds * 1000:.2f}" for seconds in times]
    return [rate.name, hertz, *shown, rate.messages]


def as_json(rate: TopicRate) -> dict[str, object]:
    """An output as one JSON object; null where there were fewer than two messages."""

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
