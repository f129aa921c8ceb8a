"""`dora cluster diff`."""

from __future__ import annotations

import typer

from dora_cli.commands.cluster.arguments import FleetFile, OnlyDataflows, coordinator_of
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort

CHANGES = 2
"""Exit code if the file differs from what runs."""


def main(
    path: FleetFile,
    only: OnlyDataflows = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show what `dora cluster apply` would change, node by node.

    Exits with 0 if nothing would change, with 2 if something would.
    """
    from dora_cli.live import fleet

    names = tuple(only or ())
    read = fleet.read(path, names)
    fleet.note_unversioned(read.fleet)
    with coordinator_of(read.loaded.cluster, coordinator_addr, coordinator_port) as client:
        found = fleet.compare(client, read, names)
    if fleet.show(found):
        raise typer.Exit(CHANGES)
