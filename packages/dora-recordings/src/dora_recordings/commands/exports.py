"""Formats of `dora recording export`: Parquet, Foxglove, LeRobot."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dora_cli import output
from dora_recordings.formats import Files, Target, reading, warn_of_refused

PARQUET_COLUMNS = ("FILE", "MESSAGES")
FOXGLOVE_COLUMNS = ("TOPIC", "SCHEMA", "MESSAGES", "LEFT OUT")


def parquet(files: Files, target: Target = None) -> None:
    """Write a Parquet file for each output, with a row for each message."""
    from dora_recordings.export.parquet import export

    with reading(files) as recording:
        written = export(recording.messages(), target or files[0].with_suffix(""))
        output.table(PARQUET_COLUMNS, list(written.items()))


def foxglove(files: Files, target: Target = None) -> None:
    """Write an MCAP file that Foxglove, Lichtblick and Rerun display."""
    from dora_recordings.export.foxglove import FoxgloveExport
    from dora_recordings.export.visuals import VisualDecoder

    file = target or files[0].with_name(f"{files[0].stem}_foxglove.mcap")
    with reading(files) as recording:
        export = FoxgloveExport(file, VisualDecoder(recording.dataflow))
        export.write(recording.messages())
        outputs = [(topic, one) for (topic, _), one in export.outputs.items()]
        rows = [(topic, one.type, one.messages, one.refused) for topic, one in outputs]
        output.table(FOXGLOVE_COLUMNS, sorted(rows))
        output.write(f"wrote {file}")
        warn_of_refused((topic, one.refused, one.reason) for topic, one in outputs)


def _output(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="NODE/OUTPUT", help=text)
    return option


def lerobot(
    files: Files,
    target: Target = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]NODE/OUTPUT",
            help="A camera, and its name in the dataset (repeatable); default all.",
        ),
    ] = None,
    state: Annotated[str | None, _output("The state of the robot, numbers.")] = None,
    action: Annotated[str | None, _output("The actions, numbers.")] = None,
    episodes: Annotated[
        str | None, _output("`start`, `stop` and `discard` of episodes; default one.")
    ] = None,
    every: Annotated[
        str | None, _output("A frame for each message; default the first camera.")
    ] = None,
    fps: Annotated[
        int | None, typer.Option(min=1, help="Frames per second; default as measured.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="Task of episodes without metadata `task`.")
    ] = "recorded with dora",
    robot: Annotated[str | None, typer.Option(help="Type of the robot.")] = None,
    split_by: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="A dataset for each value in the metadata of actions: `source`."
        ),
    ] = None,
    codec: Annotated[
        Literal["h264", "av1"],
        typer.Option(help="Of videos; av1 to merge with datasets of LeRobot."),
    ] = "h264",
) -> None:
    """Write a LeRobot v3 dataset."""
    from dora_recordings.export.lerobot import LeRobotOptions, export_lerobot

    folder = target or files[0].with_suffix("")
    images = None if image is None else dict(_camera(text) for text in image)
    options = LeRobotOptions(
        images, state, action, episodes, every, fps, task, robot, split_by, codec
    )
    with reading(files) as recording:
        datasets = export_lerobot(recording.messages, recording.dataflow, options, folder)
        for note in dict.fromkeys(note for done in datasets.values() for note in done.notes):
            output.warn(note)
        for path, done in datasets.items():
            counted = output.counted(done.episodes, "episode")
            output.write(f"wrote {path}: {counted}, {output.counted(done.frames, 'frame')}")
            if done.repeated or done.skipped:
                output.remark(
                    f"{done.repeated} frames repeat the one before, {done.skipped} messages are"
                    " left out: they came later or earlier than the frame rate allows"
                )


def _camera(text: str) -> tuple[str, str]:
    """Return output and name of a camera."""
    name, _, topic = text.rpartition("=")
    return topic, name
