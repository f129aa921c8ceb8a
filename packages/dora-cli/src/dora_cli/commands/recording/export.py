"""`dora recording export`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_daemon.recording.export.lerobot import LeRobotOptions
    from dora_daemon.recording.reading import Recording

PARQUET_COLUMNS = ("FILE", "MESSAGES")
FOXGLOVE_COLUMNS = ("TOPIC", "SCHEMA", "MESSAGES", "LEFT OUT")
ROSBAG_COLUMNS = ("OUTPUT", "TOPIC", "TYPE", "MESSAGES", "LEFT OUT")


class Format(StrEnum):
    """Values of `--to`."""

    PARQUET = "parquet"
    FOXGLOVE = "foxglove"
    LEROBOT = "lerobot"
    ROSBAG = "rosbag"


def _topic(name: str, *, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar="NODE/OUTPUT", help=help)
    return option


def main(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE..", help="The recording, or its files.")
    ],
    to: Annotated[Format, typer.Option("--to", help="Format.")] = Format.PARQUET,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Folder or file; default the recording's name."
        ),
    ] = None,
    image: Annotated[
        list[str] | None, _topic("--image", help="lerobot: a camera (repeatable); default all.")
    ] = None,
    state: Annotated[
        str | None, _topic("--state", help="lerobot: the state of the robot, numbers.")
    ] = None,
    action: Annotated[str | None, _topic("--action", help="lerobot: the actions, numbers.")] = None,
    episodes: Annotated[
        str | None,
        _topic(
            "--episodes", help="lerobot: `start`, `stop` and `discard` of episodes; default one."
        ),
    ] = None,
    every: Annotated[
        str | None,
        _topic("--every", help="lerobot: a frame for each message; default the first camera."),
    ] = None,
    fps: Annotated[
        int | None,
        typer.Option("--fps", min=1, help="lerobot: frames per second; default as measured."),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="lerobot: task of episodes without metadata `task`.")
    ] = "recorded with dora",
    robot: Annotated[
        str | None, typer.Option("--robot", help="lerobot: type of the robot.")
    ] = None,
) -> None:
    """Convert a recording to another format.

    `parquet`: a file for each output, a row for each message. `foxglove`: an MCAP file that
    Foxglove, Lichtblick and Rerun display. `lerobot`: a LeRobot v3 dataset. `rosbag`: a ROS 2 bag
    (MCAP) of the topics of `ros2:` nodes; needs the wheel dora-ros2. What is damaged is left out,
    and the exit code is then 1.
    """
    from dora_cli.recordings.report import damage_of
    from dora_daemon.recording.reading import Recording

    recordings = [Recording(path) for path in files]
    name = target or files[0].with_suffix("")
    umask = os.umask(0o077)  # other accounts cannot read recordings either
    try:
        match to:
            case Format.PARQUET:
                _to_parquet(recordings, name)
            case Format.FOXGLOVE:
                _to_foxglove(recordings, target or name.with_name(f"{name.name}_foxglove.mcap"))
            case Format.LEROBOT:
                from dora_daemon.recording.export.lerobot import LeRobotOptions

                images = None if image is None else tuple(image)
                options = LeRobotOptions(images, state, action, episodes, every, fps, task, robot)
                _to_lerobot(recordings, options, name)
            case Format.ROSBAG:
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
        (topic, one.schema, one.messages, one.refused)
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
