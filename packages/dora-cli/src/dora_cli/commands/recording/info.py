"""`dora recording info`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output

if TYPE_CHECKING:
    from dora_daemon.recording.channel_statistics import ChannelStatistics
    from dora_daemon.recording.reading import Recording

COLUMNS = ("TOPIC", "TYPE", "MESSAGES", "BYTES", "HZ", "LONGEST GAP (MS)", "MISSING")
DASH = "-"


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording.")],
    output_format: options.Output = options.TableFormat.TABLE,
) -> None:
    """Show the outputs in a recording: messages, rates and gaps.

    MISSING counts messages that were sent between recorded ones and are not in the file. A file
    whose recorder was killed is read up to its last complete part. What is damaged is listed.
    """
    from dora_daemon.recording.channel_statistics import ChannelStatistics
    from dora_daemon.recording.reading import Recording

    recording = Recording(file)
    channels: dict[str, ChannelStatistics] = {}
    for message in recording.messages():
        channel = channels.setdefault(message.topic, ChannelStatistics(message.topic))
        channel.add(message.type_name, message.log_time, message.sequence, len(message.data))
    rows = sorted(channels.values(), key=lambda one: one.topic)
    if output_format is options.TableFormat.JSON:
        output.json_line(_as_json(recording, rows))
    else:
        _print(recording, rows)


def _print(recording: Recording, rows: list[ChannelStatistics]) -> None:
    facts = recording.facts
    source = facts.source
    name = source.get("dataflow") or source.get("dataflow_id") or "unknown"
    output.write(f"dataflow: {name}")
    output.write(f"machine: {source.get('machine') or source.get('host') or 'unknown'}")
    if rows:
        first = min(one.first for one in rows)
        seconds = (max(one.last for one in rows) - first) / 1e9
        output.write(f"start: {_moment(first)}, duration: {seconds:.3f} s")
    for clock in facts.clocks:
        if "machine" in clock:
            begin, end = (int(clock[f"{key}_offset_ns"]) / 1e6 for key in ("first", "last"))
            output.write(
                f"clock of {clock['machine']} in {clock['file']}: corrected by {-begin:+.3f} ms at"
                f" the beginning, {-end:+.3f} ms at the end"
            )
    for damage in recording.damage:
        output.write(f"damaged: {damage}")
    if not recording.finished:
        output.write("unfinished: the recorder was killed, or still records")
    output.table(COLUMNS, [_cells(one) for one in rows])


def _moment(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cells(channel: ChannelStatistics) -> list[object]:
    rate = channel.rate
    return [
        channel.topic,
        " | ".join(channel.types),
        channel.messages,
        channel.nbytes,
        DASH if rate is None else f"{rate:.2f}",
        DASH if channel.messages < 2 else f"{channel.longest_gap / 1e6:.2f}",
        channel.missing,
    ]


def _as_json(recording: Recording, rows: list[ChannelStatistics]) -> dict[str, object]:
    facts = recording.facts
    return {
        "file": str(recording.path),
        "finished": recording.finished,
        "damaged": [asdict(damage) for damage in recording.damage],
        "source": facts.source,
        "lost": facts.lost,
        "clocks": [clock for clock in facts.clocks if "machine" in clock],
        "channels": [
            {
                "topic": one.topic,
                "types": list(one.types),
                "messages": one.messages,
                "bytes": one.nbytes,
                "first_ns": one.first,
                "last_ns": one.last,
                "hz": one.rate,
                "longest_gap_ms": None if one.messages < 2 else one.longest_gap / 1e6,
                "missing": one.missing,
            }
            for one in rows
        ],
    }
