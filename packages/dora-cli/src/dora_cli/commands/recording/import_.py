"""`dora recording import`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_cli.errors import CommandFailed

COLUMNS = ("TOPIC", "TYPE", "OUTPUT", "MESSAGES", "LEFT OUT")
_REPORT_SECONDS = 5.0


def main(
    bag: Annotated[
        Path, typer.Argument(metavar="BAG", help="Folder, .mcap or .db3 file of a ROS 2 bag.")
    ],
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default BAG_dora.mcap."),
    ] = None,
) -> None:
    """Convert a ROS 2 bag to a recording with an output for each topic.

    The outputs have the values that a `ros2:` node sends. Needs the wheel dora-ros2. Messages that
    are damaged or whose type is unknown are left out and counted, and the exit code is then 1.
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
    output.table(COLUMNS, rows)
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
