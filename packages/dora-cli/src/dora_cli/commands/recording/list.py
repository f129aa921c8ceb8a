"""`dora recording list`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_cli.recordings.fleet import FleetRecording

COLUMNS = ("RECORDING", "DATAFLOW", "STARTED", "STATE", "MACHINES", "SIZE (MB)", "MESSAGES", "LOST")


def main(
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List the recordings on the machines of a cluster."""
    from dora_cli.recordings.fleet import call, collect
    from dora_config.protocol.recordings import ListRecordings

    with connect(coordinator_addr, coordinator_port) as client:
        replies = call(client, ListRecordings())
    recordings = collect(replies)
    if output_format is options.TableFormat.JSON:
        for one in recordings:
            output.json_line(_as_json(one))
    else:
        output.table(COLUMNS, [_cells(one) for one in recordings])
        for one in recordings:
            for problem in one.problems:
                output.remark(f"{one.recording[:8]}: {problem}")
    for problem in replies.problems.values():
        output.warn(problem)
    if replies.problems:
        raise CommandFailed


def _cells(recording: FleetRecording) -> list[object]:
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


def _as_json(recording: FleetRecording) -> dict[str, object]:
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
