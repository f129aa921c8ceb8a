"""`dora recording fetch` and `dora record fetch`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_cli.commands.recording.arguments import RecordingArgument
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.errors import CommandFailed


def main(
    recording: RecordingArgument = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Default: recording_<date>_<time>.mcap."
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Merge without machines that are not connected."),
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
    from dora_cli.recordings.fetching import fetch, merge_fetched, remove_from_machines
    from dora_cli.recordings.fleet import find

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
