"""Stream of updates about watched outputs, and their rates.

The client acknowledges each update after it was shown. The coordinator sends the next one then, so
a slow terminal gets the newest messages and the rest is not stored anywhere.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from dora_cli import options, output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.errors import CommandFailed
from dora_cli.screen import Screen, screen
from dora_config.protocol.control import WatchTopics
from dora_config.protocol.envelope import clean_text
from dora_config.protocol.topics import TopicRate, TopicsEnd, TopicUpdate, WatchedTopics

BEGIN_WITHIN = 10.0
"""Seconds to wait for the first update before the duration starts anyway."""
HINT_AFTER = 5.0
"""Seconds without a message before a hint is printed."""
DROPS_EVERY = 5.0
"""Seconds between two remarks about messages that were not shown."""
COLUMNS = ("TOPIC", "AVG (HZ)", "AVG (MS)", "MIN (MS)", "MAX (MS)", "STD (MS)", "MESSAGES")
REPORT_INTERVAL = 1.0
"""Seconds between two reports without a terminal."""
DASH = "-"


def show_rates(
    client: CoordinatorClient,
    request: WatchTopics,
    duration: float | None,
    style: options.TableFormat,
) -> None:
    """Show rates for ``duration``, or until q, Escape, Ctrl-C or the end of the dataflow.

    The newest rates are printed at the end, also before an error. Raises as `watch`.
    """
    table = style == "table"
    live = table and duration is None and sys.stdin.isatty() and sys.stdout.isatty()
    rates = NewestRates(style)
    try:
        with screen() if live else nullcontext() as terminal:
            updates = watch(client, request, duration, tick=0.2)
            if terminal is not None:
                _follow_live(updates, rates, terminal)
            else:
                _follow(updates, rates, every=REPORT_INTERVAL if duration is None else math.inf)
    except KeyboardInterrupt:
        pass  # ends the command normally
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
    if style == "json":
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


def _image(data: Any, metadata: Any) -> tuple[Any, Any]:
    """Return the fields of a message for a row; an image has its size instead of its pixels."""
    if not isinstance(data, list) or not data:
        return data, metadata
    struct = data[0]
    if isinstance(struct, dict):
        values = struct if len(data) == 1 and "data" in struct else {}
    else:  # detections have the metadata of their image, but are not whole numbers
        values = metadata if type(struct) is int else {}
    if not isinstance(values.get("encoding"), str):
        return data, metadata
    if type(values.get("width")) is not int or type(values.get("height")) is not int:
        return data, metadata
    return f"<{values['width']} x {values['height']} {values['encoding'][:32]}>", metadata


def message_row(text: str) -> str:
    """Return output, data and metadata of a message that arrived as JSON, on one line."""
    message = json.loads(text)

    def shown(value: object) -> str:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return clean_text(text, limit=len(text))

    data, metadata = _image(message["data"], message["metadata"])
    row = f"{message['name']}\t data={shown(data)} metadata={shown(metadata)}"
    facts = message.get("shortened")
    if facts is None:
        return row
    return f"{row} (shortened: {', '.join(f'{name} {value}' for name, value in facts.items())})"


def watch(
    client: CoordinatorClient, request: WatchTopics, seconds: float | None, *, tick: float
) -> Iterator[TopicUpdate | None]:
    """Yield updates for ``seconds`` from the first one, or until the dataflow has ended.

    Yields None at least every ``tick`` seconds. Raises CommandFailed when the coordinator reported
    why no more updates can come, and what `CoordinatorClient` raises.
    """
    number = client.streams.send(request)
    until = math.inf if seconds is None else time.monotonic() + seconds + BEGIN_WITHIN
    begun = False
    while (left := until - time.monotonic()) > 0:
        frame = client.streams.next_frame(min(left, tick))
        match frame:
            case None:
                yield None
            case (of, WatchedTopics() as watched) if of == number:
                update = watched.update
                if not begun and seconds is not None:
                    until = time.monotonic() + seconds
                begun = True
                for note in update.notes:
                    output.warn(note)
                yield update
                client.streams.acknowledge(number, watched.stream)
            case (of, RequestFailed() as problem) if of == number:
                raise problem
            case (of, TopicsEnd(problems=problems)) if of == number:
                _report_end(problems)
                return


def _report_end(problems: tuple[str, ...]) -> None:
    for problem in problems:
        output.warn(problem)
    if problems:
        raise CommandFailed
    output.remark("the dataflow has ended")


class SilenceHint:
    """Prints one hint when no message arrives for some time."""

    def __init__(self, names: str) -> None:
        self._names = names
        self._since: float | None = time.monotonic()

    def update(self, *, received: bool) -> None:
        """Print the hint if it is due; ``received``: a message has arrived."""
        if received:
            self._since = None
        elif self._since is not None and time.monotonic() - self._since >= HINT_AFTER:
            self._since = None
            output.remark(
                f"hint: no message of {self._names} for {HINT_AFTER:g} s; check with "
                "`dora node list` that the node runs, and the outputs with `dora topic list`"
            )


class DropCounter:
    """Counts messages that were not shown and reports them every few seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: dict[str, int] = {}
        self._reported = now() - DROPS_EVERY

    def add(self, counts: dict[str, int]) -> None:
        """Count messages by output; reports when it is due."""
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        if self._now() - self._reported >= DROPS_EVERY:
            self.report()

    def report(self) -> None:
        """Print the counts since the last report."""
        if self._counts:
            many = ", ".join(f"{count} of {name}" for name, count in self._counts.items())
            output.remark(f"not shown: {many} (messages arrive faster than they can be shown)")
            self._counts = {}
            self._reported = self._now()
