"""Commands of `dora recording`."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.errors import CommandFailed
from dora_recordings.commands.format_command import FormatCommand

if TYPE_CHECKING:
    from dora_cli.coordinator.recordings import FleetRecording
    from dora_recordings.channel_statistics import ChannelStatistics
    from dora_recordings.reading import Recording


RecordingArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECORDING]",
        help="Start of its id, or name or UUID of its dataflow; default the newest.",
    ),
]

INFO_COLUMNS = ("TOPIC", "TYPE", "MESSAGES", "BYTES", "HZ", "LONGEST GAP (MS)", "MISSING")
DASH = "-"


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording.")],
    output_format: options.Output = "table",
) -> None:
    """Show the outputs in a recording: messages, rates and gaps.

    MISSING counts messages that were sent between recorded ones and are not in the file. A file
    whose recorder was killed is read up to its last complete part. What is damaged is listed, and
    the exit code is then 1.
    """
    from dora_recordings.channel_statistics import ChannelStatistics
    from dora_recordings.reading import Recording

    recording = Recording(file)
    channels: dict[str, ChannelStatistics] = {}
    for message in recording.messages():
        channel = channels.setdefault(message.topic, ChannelStatistics(message.topic))
        channel.add(message.type_name, message.log_time, message.sequence, len(message.data))
    rows = sorted(channels.values(), key=lambda one: one.topic)
    if output_format == "json":
        output.json_line(_info_json(recording, rows))
    else:
        _print_info(recording, rows)
    if recording.damage:
        output.failure(f"{file} is damaged")
        raise CommandFailed


def _print_info(recording: Recording, rows: list[ChannelStatistics]) -> None:
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
    output.table(INFO_COLUMNS, [_info_cells(one) for one in rows])


def _moment(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _info_cells(channel: ChannelStatistics) -> list[object]:
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


def _info_json(recording: Recording, rows: list[ChannelStatistics]) -> dict[str, object]:
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


export = FormatCommand(
    "export",
    "Convert a recording to another format. What is damaged is left out, and the exit code is"
    " then 1.",
    "--to",
    "dora.exports",
    default="parquet",
)
import_ = FormatCommand(
    "import", "Convert data of another program to a recording.", "--from", "dora.imports"
)


LIST_COLUMNS = (
    "RECORDING",
    "DATAFLOW",
    "STARTED",
    "STATE",
    "MACHINES",
    "SIZE (MB)",
    "MESSAGES",
    "LOST",
)


def list_(
    output_format: options.Output = "table",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List the recordings on the machines of a cluster."""
    from dora_cli.coordinator.recordings import collect
    from dora_config.protocol.recordings import ListRecordings
    from dora_recordings.client.fleet import call

    with connect(coordinator_addr, coordinator_port) as client:
        replies = call(client, ListRecordings())
        recordings = collect(replies)
        if output_format == "json":
            for one in recordings:
                output.json_line(_list_json(one))
        else:
            output.table(LIST_COLUMNS, [_list_cells(one) for one in recordings])
            for one in recordings:
                for problem in one.problems:
                    output.remark(f"{one.recording[:8]}: {problem}")
        for problem in replies.problems.values():
            output.warn(problem)
        if replies.problems:
            raise CommandFailed


def _list_cells(recording: FleetRecording) -> list[object]:
    return [
        recording.recording[:8],
        recording.label,
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(recording.started)),
        recording.phase,
        ", ".join(
            name if name in recording.states else f"{name} (not connected)"
            for name in sorted(recording.machines)
        ),
        f"{recording.nbytes / 1e6:.1f}",
        sum(recording.recorded.values()),
        sum(recording.lost.values()),
    ]


def _list_json(recording: FleetRecording) -> dict[str, object]:
    return {
        "recording": recording.recording,
        "dataflow": recording.label,
        "started": recording.started,
        "state": recording.phase,
        "machines": {
            name: recording.states[name].model_dump(
                mode="json", include={"phase", "files", "recorded", "lost", "problems"}
            )
            if name in recording.states
            else None
            for name in sorted(recording.machines)
        },
    }


def stop(
    recording: RecordingArgument = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """End a recording on the machines of a cluster; the dataflow keeps running."""
    from dora_config.protocol.recordings import StopRecording
    from dora_recordings.client.fleet import end_recording

    with connect(coordinator_addr, coordinator_port) as client:
        end_recording(client, recording, StopRecording, "stopped")


def fetch(
    recording: RecordingArgument = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Default: recording_<date>_<time>.mcap."
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Merge without machines that are not connected.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Then remove the recording from the machines.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Copy a recording from the machines of a cluster and merge it into one file.

    Times are corrected to the clock of the coordinator. After an interruption, the same command
    continues. The exit code is 1 if messages were not recorded.
    """
    from dora_recordings.client.fetching import fetch, merge_fetched, remove_from_machines
    from dora_recordings.client.fleet import find

    with connect(coordinator_addr, coordinator_port) as client:
        found = find(client, recording)
        file = target or default_target(found.started)
        fetched = fetch(client, found, file, allow_missing=allow_missing)
        complete, intact = merge_fetched(fetched, file)
        if remove and not intact:
            output.warn("files are damaged: nothing was removed from the machines")
        elif remove:
            remove_from_machines(client, found)
        if not complete:
            raise CommandFailed


def default_target(started: float) -> Path:
    """Return the name of a file for a recording; the same at each attempt to fetch it."""
    return Path(time.strftime("recording_%Y%m%d_%H%M%S.mcap", time.localtime(started)))


def remove(
    recording: Annotated[
        str, typer.Argument(metavar="RECORDING", help="Start of its id; see `dora recording list`.")
    ],
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Remove an ended recording from the machines of a cluster."""
    from dora_config.protocol.recordings import RemoveRecording
    from dora_recordings.client.fleet import end_recording

    with connect(coordinator_addr, coordinator_port) as client:
        end_recording(client, recording, RemoveRecording, "removed")
