"""`dora recording remove`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect


def main(
    recording: Annotated[
        str, typer.Argument(metavar="RECORDING", help="Start of its id; see `dora recording list`.")
    ],
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Remove an ended recording from the machines of a cluster."""
    from dora_cli.recordings.fleet import SHORT, call, find
    from dora_cli.recordings.report import report_replies
    from dora_config.protocol.recordings.fleet import RemoveRecording

    with connect(coordinator_addr, coordinator_port) as client:
        found, _ = find(client, recording)
        request = RemoveRecording(recording=found.recording)
        replies = call(client, request, sorted(found.machines))
    report_replies(replies, f"removed recording {found.recording[:SHORT]}")
