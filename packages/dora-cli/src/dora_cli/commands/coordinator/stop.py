"""`dora stop`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import output
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowArgument,
    DataflowName,
    Force,
    GraceDuration,
    connect,
    dataflow_ref,
    grace_seconds,
)
from dora_cli.errors import CommandFailed


def main(
    dataflow: DataflowArgument = None,
    name: DataflowName = None,
    every: Annotated[bool, typer.Option("--all", help="All running dataflows.")] = False,
    grace_duration: GraceDuration = None,
    force: Force = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a dataflow and wait until it has ended; the exit code is 1 if it failed."""
    from dora_cli.coordinator.client import RequestFailed
    from dora_cli.logs.run_report import label, report_ended
    from dora_config.protocol.control import Ended, StopDataflow

    if every and (dataflow is not None or name is not None):
        raise typer.BadParameter("--all cannot be used together with a dataflow")
    request = StopDataflow(
        dataflow=dataflow_ref(dataflow, name),
        all=every,
        grace=grace_seconds(grace_duration, force=force),
        force=force,
    )
    with connect(coordinator_addr, coordinator_port) as client:
        try:
            answer = client.request(request, Ended)
        except RequestFailed as problem:
            if problem.code == "nothing_runs":
                output.write(str(problem))
                return
            raise
    ok = True
    for ended in answer.dataflows:
        output.write(f"dataflow stopped: {label(ended.uuid, ended.name)}")
        ok = report_ended(ended) and ok
    if not ok:
        raise CommandFailed
