"""`dora cluster restart`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import output
from dora_cli.coordinator.completion import running_dataflows
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_config.protocol.rest import paths


def main(
    dataflow: Annotated[
        str,
        typer.Argument(metavar="DATAFLOW", help="UUID or name.", autocompletion=running_dataflows),
    ],
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a dataflow and start it again from the coordinator's record."""
    output.write(f"Restarting dataflow `{dataflow}`")
    with connect(coordinator_addr, coordinator_port) as client:
        answer = client.post(paths.url(paths.DATAFLOWS, dataflow, "restart"))
    output.write(f"dataflow restarted: {answer.old} -> {answer.new}")
    for warning in answer.warnings:
        output.warn(warning)
