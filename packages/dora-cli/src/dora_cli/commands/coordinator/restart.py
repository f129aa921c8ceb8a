"""`dora restart`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowArgument,
    DataflowName,
    Force,
    GraceDuration,
    chosen_dataflow,
    connect,
    grace_seconds,
)
from dora_config.protocol.rest import paths


def main(
    dataflow: DataflowArgument = None,
    name: DataflowName = None,
    grace_duration: GraceDuration = None,
    force: Force = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a dataflow and start it again as the coordinator has stored it."""
    wanted = {
        "dataflow": chosen_dataflow(dataflow, name),
        "grace": grace_seconds(grace_duration, force=force),
        "force": force,
    }
    with connect(coordinator_addr, coordinator_port) as client:
        answer = client.post(f"{paths.DATAFLOWS}/restart", wanted)
    for warning in answer.warnings:
        output.warn(warning)
    output.write(f"dataflow restarted: {answer.old} -> {answer.new}")
