"""ROS 2 bags as a format of `dora recording export` and `import`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_cli.errors import CommandFailed
from dora_recordings.formats import Files, Target, private_files, reading, warn_of_refused

EXPORT_COLUMNS = ("OUTPUT", "TOPIC", "TYPE", "MESSAGES", "LEFT OUT")
IMPORT_COLUMNS = ("TOPIC", "TYPE", "OUTPUT", "MESSAGES", "LEFT OUT")
_REPORT_SECONDS = 5.0
"""Interval between two reports of progress."""


def export(files: Files, target: Target = None) -> None:
    """Write a ROS 2 bag (MCAP) of the topics of `ros2:` nodes."""
    from dora_ros2.bags.exporting import RosbagExport

    folder = target or files[0].with_name(f"{files[0].stem}_rosbag")
    with reading(files) as recording:
        export = RosbagExport(folder, recording.dataflow, recording.working_dir)
        export.write(recording.messages())
        topics = [(name, one) for (name, _), one in export.topics.items()]
        rows = [(name, one.topic, one.type, one.messages, one.refused) for name, one in topics]
        output.table(EXPORT_COLUMNS, rows)
        output.write(f"wrote {folder}")
        if export.others:
            output.remark(f"no ROS topics: {', '.join(export.others)}")
        warn_of_refused((name, one.refused, one.reason) for name, one in topics)


def import_bag(
    bag: Annotated[
        Path, typer.Argument(metavar="BAG", help="Folder, .mcap or .db3 file of a ROS 2 bag.")
    ],
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default BAG_dora.mcap."),
    ] = None,
) -> None:
    """Read a ROS 2 bag, with an output for each topic.

    The outputs have the values that a `ros2:` node sends. Messages that are damaged or whose type
    is unknown are left out and counted, and the exit code is then 1.
    """
    from dora_ros2.bags.importing import BagImport

    bag = bag.absolute()
    name = bag.name.removesuffix(".zstd")
    stem = Path(name).stem if name.endswith((".mcap", ".db3")) else name
    file = target or bag.with_name(f"{stem}_dora.mcap")
    with private_files():
        done = BagImport(bag, file, stem, _Progress())
        done.run()
    topics = sorted(done.topics.values(), key=lambda one: one.topic)
    rows = [(one.topic, one.type, one.output, one.messages, one.refused) for one in topics]
    output.table(IMPORT_COLUMNS, rows)
    output.write(f"wrote {file}")
    for problem in done.bag.problems:
        output.warn(problem)
    warn_of_refused((one.topic, one.refused, one.reason) for one in topics)
    if done.bag.problems:
        raise CommandFailed


class _Progress:
    def __init__(self) -> None:
        self._due = time.monotonic() + _REPORT_SECONDS

    def __call__(self, messages: int) -> None:
        if time.monotonic() >= self._due:
            self._due += _REPORT_SECONDS
            output.remark(f"{messages} messages so far")
