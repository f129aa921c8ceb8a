"""Explanation of a dataflow as text; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Final

from dora_cli.output import aligned, box, counted
from dora_config.history.explanation import Cause, Explanation, Occurrence
from dora_config.yaml.quantities import show_age

MAX_EVENTS: Final = 40
"""Lines of the timeline; the last ones are shown."""
MIN_FOLDED: Final = 4
"""Equal events of one node of which only the first and the last are shown."""


def explanation_lines(explained: Explanation, zone: tzinfo | None = None) -> Iterator[str]:
    """Yield the lines of an explanation; ``zone``: of the shown times, by default the local one."""
    yield f"{_title(explained)}: {explained.status}"
    if explained.cause is None or explained.summary != explained.cause.text:
        yield from _indented([explained.summary])
    if explained.cause is not None:
        yield from ("", *_cause(explained.cause, explained, zone))
    if explained.timeline:
        yield from ("", "Timeline", *_timeline(explained.timeline, explained.now, zone))
    if explained.findings:
        yield from ("", "Flow of messages")
        for finding in explained.findings:
            silent = ", ".join(finding.inputs)
            more = f"; inputs without messages: {silent}" if silent else ""
            yield from _indented([f"{finding.text}{more}"])
    if explained.waits_for:
        yield from ("", "Now", *_indented(explained.waits_for))
    if explained.notes:
        yield from ("", "Notes", *_indented(explained.notes))


def _title(explained: Explanation) -> str:
    if not explained.name and not explained.uuid:
        return "Cluster"
    name = f'"{explained.name}"' if explained.name else ""
    uuid = f"({explained.uuid})" if name and explained.uuid else explained.uuid
    return " ".join(filter(None, ("Dataflow", name, uuid)))


def _indented(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        first, *rest = text.splitlines() or [""]
        yield f"  {first}"
        yield from (f"    {line}" for line in rest)


def _cause(cause: Cause, explained: Explanation, zone: tzinfo | None) -> Iterator[str]:
    ago = show_age(max(0.0, explained.now - cause.at))
    over = ""
    if cause.resolved_at is not None:
        over = f", over at {_time(cause.resolved_at, explained.now, zone)}"
    yield f"First cause, at {_time(cause.at, explained.now, zone)} ({ago} ago{over})"
    yield from _indented([cause.text])
    if cause.stderr:
        yield from box("stderr", cause.stderr).splitlines()


def _timeline(occurrences: Sequence[Occurrence], now: float, zone: tzinfo | None) -> Iterator[str]:
    rows = [_row(one, now, zone) for one in _folded(occurrences)]
    early, late = rows[:-MAX_EVENTS], rows[-MAX_EVENTS:]
    kept = [row for row in early if row[0] == ">"]
    if len(early) > len(kept):
        text = f"... {counted(len(early) - len(kept), 'earlier event')}; --format json has all"
        rows = [("", "", "", "", text), *kept, *late]
    columns = ["", "TIME", "MACHINE", "NODE", "EVENT"]
    if not any(row[2] for row in rows):
        columns.pop(2)
        rows = [(*row[:2], *row[3:]) for row in rows]
    yield from (f"  {line}".rstrip() for line in aligned(columns, rows).splitlines())


def _folded(occurrences: Sequence[Occurrence]) -> Iterator[Occurrence | str]:
    """Replace all but the first and the last of many equal events of a node by their number."""
    places: dict[tuple[str | None, str | None, str], list[int]] = {}
    for index, one in enumerate(occurrences):
        places.setdefault((one.machine, one.node, _shape(one.text)), []).append(index)
    hidden: dict[int, int] = {}
    """Number of the equal events that are not shown, by the index of each."""
    for found in places.values():
        if len(found) > MIN_FOLDED:
            middle = [index for index in found[1:-1] if occurrences[index].role != "cause"]
            hidden |= dict.fromkeys(middle, len(middle))
    reported: set[tuple[str | None, str | None, str]] = set()
    for index, one in enumerate(occurrences):
        if index not in hidden:
            yield one
            continue
        key = (one.machine, one.node, _shape(one.text))
        if key not in reported:
            reported.add(key)
            of = f' of node "{one.node}"' if one.node else ""
            yield f"... {counted(hidden[index], 'more event')}{of} like the one before"


def _shape(text: str) -> str:
    """Return a text with all numbers replaced by 0."""
    return re.sub(r"\d+", "0", text)


def _row(one: Occurrence | str, now: float, zone: tzinfo | None) -> tuple[str, ...]:
    if isinstance(one, str):
        return ("", "", "", "", one)
    mark = ">" if one.role == "cause" else "!" if one.problem else ""
    text = (one.text.splitlines() or [""])[0]
    return (mark, _time(one.at, now, zone), one.machine or "", one.node or "", text)


def _time(at: float, now: float, zone: tzinfo | None) -> str:
    """Return a time with milliseconds; with the date unless it is today."""
    moment = datetime.fromtimestamp(at, zone)
    text = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
    today = datetime.fromtimestamp(now, zone).date() == moment.date()
    return text if today else f"{moment:%Y-%m-%d} {text}"
