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
    from dora_cli.recordings.fleet import end_recording
    from dora_config.protocol.recordings import RemoveRecording

    with connect(coordinator_addr, coordinator_port) as client:
        end_recording(client, recording, RemoveRecording, "removed")
