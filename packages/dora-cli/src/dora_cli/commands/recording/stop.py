"""`dora recording stop`."""

from __future__ import annotations

from dora_cli.commands.recording.arguments import RecordingArgument
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect


def main(
    recording: RecordingArgument = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """End a recording on the machines of a cluster; the dataflow keeps running."""
    from dora_cli.recordings.fleet import end_recording
    from dora_config.protocol.recordings import StopRecording

    with connect(coordinator_addr, coordinator_port) as client:
        end_recording(client, recording, StopRecording, "stopped")
