"""`dora cluster rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import output
from dora_cli.commands.cluster.arguments import OptionalFleetFile, coordinator_in
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort


def main(
    path: OptionalFleetFile = None,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="N", help="This generation (default: the one before)."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for the end of the roll-out.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Apply an earlier generation of the fleet again, with the code that it had.

    `dora cluster downgrade` returns to an earlier version of dora.
    """
    from dora_cli.live import fleet
    from dora_config.protocol.fleet import FleetReport, RollBackFleet

    with coordinator_in(path, coordinator_addr, coordinator_port) as client:
        started = client.request(RollBackFleet(to=to, by=fleet.operator()), FleetReport)
        output.write(f"applying generation {started.generation}")
        if not detach:
            fleet.finish(client, started)
