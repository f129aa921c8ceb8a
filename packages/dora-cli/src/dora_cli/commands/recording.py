"""Commands of `dora recording`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import with_client
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_cli.recordings.fleet import FleetRecording
    from dora_daemon.recording.channel_statistics import ChannelStatistics
    from dora_daemon.recording.export.lerobot import LeRobotOptions
    from dora_daemon.recording.reading import Recording


RecordingArgument = Annotated[
    str | None,
    ":[RECORDING]: Start of its id, or name or UUID of its dataflow; default the newest.",
]

INFO_COLUMNS = ("TOPIC", "TYPE", "MESSAGES", "BYTES", "HZ", "LONGEST GAP (MS)", "MISSING")
DASH = "-"


def info(
    file: Path,
    output_format: options.Output = "table",
) -> None:
    """Show the outputs in a recording: messages, rates and gaps.

    MISSING counts messages that were sent between recorded ones and are not in the file. A file
    whose recorder was killed is read up to its last complete part. What is damaged is listed.

    :FILE: The recording.
    """
    from dora_daemon.recording.channel_statistics import ChannelStatistics
    from dora_daemon.recording.reading import Recording

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


PARQUET_COLUMNS = ("FILE", "MESSAGES")
FOXGLOVE_COLUMNS = ("TOPIC", "SCHEMA", "MESSAGES", "LEFT OUT")
ROSBAG_COLUMNS = ("OUTPUT", "TOPIC", "TYPE", "MESSAGES", "LEFT OUT")


def export(
    files: list[Path],
    to: Literal["parquet", "foxglove", "lerobot", "rosbag"] = "parquet",
    target: Path | None = None,
    image: list[str] | None = None,
    state: str | None = None,
    action: str | None = None,
    episodes: str | None = None,
    every: str | None = None,
    fps: Annotated[int | None, typer.Option(min=1)] = None,
    task: str = "recorded with dora",
    robot: str | None = None,
) -> None:
    """Convert a recording to another format.

    `parquet`: a file for each output, a row for each message. `foxglove`: an MCAP file that
    Foxglove, Lichtblick and Rerun display. `lerobot`: a LeRobot v3 dataset. `rosbag`: a ROS 2 bag
    (MCAP) of the topics of `ros2:` nodes; needs the wheel dora-ros2. What is damaged is left out,
    and the exit code is then 1.

    :FILE..: The recording, or its files.
    :--to: Format.
    :--output, -o PATH: Folder or file; default the recording's name.
    :--image NODE/OUTPUT: lerobot: a camera (repeatable); default all.
    :--state NODE/OUTPUT: lerobot: the state of the robot, numbers.
    :--action NODE/OUTPUT: lerobot: the actions, numbers.
    :--episodes NODE/OUTPUT: lerobot: `start`, `stop` and `discard` of episodes; default one.
    :--every NODE/OUTPUT: lerobot: a frame for each message; default the first camera.
    :--fps: lerobot: frames per second; default as measured.
    :--task: lerobot: task of episodes without metadata `task`.
    :--robot: lerobot: type of the robot.
    """
    from dora_cli.recordings.fleet import damage_of
    from dora_daemon.recording.reading import Recording

    recordings = [Recording(path) for path in files]
    name = target or files[0].with_suffix("")
    umask = os.umask(0o077)  # other accounts cannot read recordings either
    try:
        match to:
            case "parquet":
                _to_parquet(recordings, name)
            case "foxglove":
                _to_foxglove(recordings, target or name.with_name(f"{name.name}_foxglove.mcap"))
            case "lerobot":
                from dora_daemon.recording.export.lerobot import LeRobotOptions

                images = None if image is None else tuple(image)
                options = LeRobotOptions(images, state, action, episodes, every, fps, task, robot)
                _to_lerobot(recordings, options, name)
            case "rosbag":
                _to_rosbag(recordings, target or name.with_name(f"{name.name}_rosbag"))
    finally:
        os.umask(umask)
        damage = damage_of(recordings)
        for text in damage:
            output.warn(f"{text} left out")
    if damage:
        raise CommandFailed


def _to_parquet(recordings: list[Recording], folder: Path) -> None:
    from dora_daemon.recording.export.parquet import export
    from dora_daemon.recording.reading import merged

    output.table(PARQUET_COLUMNS, list(export(merged(recordings), folder).items()))


def _to_foxglove(recordings: list[Recording], file: Path) -> None:
    from dora_daemon.recording.export.foxglove import FoxgloveExport
    from dora_daemon.recording.export.visuals import VisualDecoder
    from dora_daemon.recording.reading import merged

    export = FoxgloveExport(file, VisualDecoder(recordings[0].facts.dataflow))
    export.write(merged(recordings))
    rows = [
        (topic, one.type, one.messages, one.refused)
        for (topic, _), one in sorted(export.outputs.items())
    ]
    output.table(FOXGLOVE_COLUMNS, rows)
    output.write(f"wrote {file}")
    _warn_of_refused((topic, one.refused, one.reason) for (topic, _), one in export.outputs.items())


def _to_rosbag(recordings: list[Recording], folder: Path) -> None:
    from dora_daemon.recording.export.rosbag import RosbagExport
    from dora_daemon.recording.reading import merged

    facts = recordings[0].facts
    export = RosbagExport(folder, facts.dataflow, facts.source.get("working_dir", ""))
    export.write(merged(recordings))
    rows = [
        (name, one.topic, one.type, one.messages, one.refused)
        for (name, _), one in sorted(export.topics.items())
    ]
    output.table(ROSBAG_COLUMNS, rows)
    output.write(f"wrote {folder}")
    if export.others:
        output.remark(f"no ROS topics: {', '.join(export.others)}")
    _warn_of_refused((name, one.refused, one.reason) for (name, _), one in export.topics.items())


def _warn_of_refused(outputs: Iterable[tuple[str, int, str]]) -> None:
    """Say what was left out and why, and fail then."""
    refused = [one for one in outputs if one[1]]
    for name, count, reason in refused:
        output.warn(f"{name}: {output.counted(count, 'message')} left out: {reason}")
    if refused:
        raise CommandFailed


def _to_lerobot(recordings: list[Recording], options: LeRobotOptions, folder: Path) -> None:
    from dora_daemon.recording.export.lerobot import export_lerobot
    from dora_daemon.recording.reading import merged

    dataflow = recordings[0].facts.dataflow
    done = export_lerobot(lambda: merged(recordings), dataflow, options, folder)
    for note in done.notes:
        output.warn(note)
    episodes = output.counted(done.episodes, "episode")
    output.write(f"wrote {folder}: {episodes}, {output.counted(done.frames, 'frame')}")
    if done.repeated or done.skipped:
        output.remark(
            f"{done.repeated} frames repeat the one before, {done.skipped} messages are left out:"
            " they came later or earlier than the frame rate allows"
        )


IMPORT_COLUMNS = ("TOPIC", "TYPE", "OUTPUT", "MESSAGES", "LEFT OUT")
_REPORT_SECONDS = 5.0


def import_(
    bag: Path,
    target: Path | None = None,
) -> None:
    """Convert a ROS 2 bag to a recording with an output for each topic.

    The outputs have the values that a `ros2:` node sends. Needs the wheel dora-ros2. Messages that
    are damaged or whose type is unknown are left out and counted, and the exit code is then 1.

    :BAG: Folder, .mcap or .db3 file of a ROS 2 bag.
    :--output, -o FILE: Default BAG_dora.mcap.
    """
    from dora_daemon.recording.rosbag import BagImport

    bag = bag.absolute()
    name = bag.name.removesuffix(".zstd")
    stem = Path(name).stem if name.endswith((".mcap", ".db3")) else name
    file = target or bag.with_name(f"{stem}_dora.mcap")
    umask = os.umask(0o077)  # as of recordings
    try:
        done = BagImport(bag, file, stem, _Progress())
        done.run()
    finally:
        os.umask(umask)
    topics = sorted(done.topics.values(), key=lambda one: one.topic)
    rows = [(one.topic, one.type, one.output, one.messages, one.refused) for one in topics]
    output.table(IMPORT_COLUMNS, rows)
    output.write(f"wrote {file}")
    refused = [one for one in topics if one.refused]
    for one in refused:
        output.warn(f"{one.topic}: {output.counted(one.refused, 'message')} left out: {one.reason}")
    for problem in done.bag.problems:
        output.warn(problem)
    if refused or done.bag.problems:
        raise CommandFailed


class _Progress:
    def __init__(self) -> None:
        self._due = time.monotonic() + _REPORT_SECONDS

    def __call__(self, messages: int) -> None:
        if time.monotonic() >= self._due:
            self._due += _REPORT_SECONDS
            output.remark(f"{messages} messages so far")


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


@with_client()
def list_(
    client: Client,
    output_format: options.Output = "table",
) -> None:
    """List the recordings on the machines of a cluster."""
    from dora_cli.recordings.fleet import call, collect
    from dora_config.protocol.recordings import ListRecordings

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


@with_client()
def stop(
    client: Client,
    recording: RecordingArgument = None,
) -> None:
    """End a recording on the machines of a cluster; the dataflow keeps running."""
    from dora_cli.recordings.fleet import end_recording
    from dora_config.protocol.recordings import StopRecording

    end_recording(client, recording, StopRecording, "stopped")


@with_client()
def fetch(
    client: Client,
    recording: RecordingArgument = None,
    target: Path | None = None,
    allow_missing: bool = False,
    remove: bool = False,
) -> None:
    """Copy a recording from the machines of a cluster and merge it into one file.

    Times are corrected to the clock of the coordinator. After an interruption, the same command
    continues. The exit code is 1 if messages were not recorded.

    :--output, -o FILE: Default: recording_<date>_<time>.mcap.
    :--allow-missing: Merge without machines that are not connected.
    :--remove: Then remove the recording from the machines.
    """
    from dora_cli.recordings.fetching import fetch, merge_fetched, remove_from_machines
    from dora_cli.recordings.fleet import find

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


@with_client()
def remove(
    client: Client,
    recording: str,
) -> None:
    """Remove an ended recording from the machines of a cluster.

    :RECORDING: Start of its id; see `dora recording list`.
    """
    from dora_cli.recordings.fleet import end_recording
    from dora_config.protocol.recordings import RemoveRecording

    end_recording(client, recording, RemoveRecording, "removed")
