"""`dora stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

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
from dora_cli.errors import CommandFailed
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_config.protocol.control import EndedDataflow


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
    from dora_cli.coordinator.errors import RequestFailed
    from dora_cli.logs.ended_report import label, report_ended

    chosen = chosen_dataflow(dataflow, name)
    if every and chosen is not None:
        raise typer.BadParameter("--all cannot be used together with a dataflow")
    wanted = {
        "dataflow": chosen,
        "all": every,
        "grace": grace_seconds(grace_duration, force=force),
        "force": force,
    }
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        for row in client.get(paths.DATAFLOWS).dataflows:
            absent = row.status == "Degraded" and "no connection to" in row.reason
            if absent and (every or chosen in (None, row.uuid, row.name)):
                output.remark(f"{row.name or row.uuid}: {row.reason}: waiting for it")
        try:
            stopped: list[EndedDataflow] = client.post(f"{paths.DATAFLOWS}/stop", wanted).dataflows
        except RequestFailed as problem:
            if problem.code == "nothing_runs":
                output.write(str(problem))
                return
            raise
    ok = True
    for ended in stopped:
        output.write(f"dataflow stopped: {label(ended.uuid, ended.name)}")
        ok = report_ended(ended) and ok
    if not ok:
        raise CommandFailed
