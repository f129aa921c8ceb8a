"""`dora cluster restart`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect, dataflow_ref


def main(
    dataflow: Annotated[str, typer.Argument(metavar="DATAFLOW", help="UUID or name.")],
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a dataflow and start it again from the coordinator's record."""
    from dora_config.protocol.control import RestartDataflow, Restarted

    output.write(f"Restarting dataflow `{dataflow}`")
    request = RestartDataflow(dataflow=dataflow_ref(dataflow))
    with connect(coordinator_addr, coordinator_port) as client:
        answer = client.request(request, Restarted)
    output.write(f"dataflow restarted: {answer.old} -> {answer.new}")
    for warning in answer.warnings:
        output.warn(warning)
