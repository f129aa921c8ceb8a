"""`dora clean`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.errors import CommandFailed
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_config.protocol.control import DataflowSummary


def main(
    output_format: options.Output = options.TableFormat.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print UUIDs only.")] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Remove ended dataflows from the list; the exit code is 1 if one of them had failed."""
    with connect(coordinator_addr, coordinator_port) as client:
        removed: list[DataflowSummary] = client.post(f"{paths.DATAFLOWS}/clean").dataflows
    if quiet:
        for row in removed:
            output.write(row.uuid)
    elif output_format is options.TableFormat.JSON:
        for row in removed:
            output.json_line({"uuid": row.uuid, "name": row.name, "status": row.status})
    else:
        rows = [(row.uuid, row.name or "", row.status) for row in removed]
        output.table(("UUID", "Name", "Status"), rows)
    if any(row.status == "Failed" for row in removed):
        raise CommandFailed
