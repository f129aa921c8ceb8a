"""`dora cluster down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli.commands.cluster.arguments import fail_unless, load_cluster_file
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort


def main(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="The cluster file; by default the last one used with this coordinator.",
        ),
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove the dora that `up` installed.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """End all dataflows, the daemons and the coordinator, and check every machine."""
    from dora_cli.cluster.operations.down import bring_down
    from dora_config.access import endpoint

    given = None if path is None else load_cluster_file(path)
    if given is not None:
        coordinator_addr = coordinator_addr or given.coordinator.addr
        coordinator_port = coordinator_port or given.coordinator.port
    fail_unless(bring_down(endpoint(coordinator_addr, coordinator_port), given, purge=purge))
