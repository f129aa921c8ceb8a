"""`dora cluster apply`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dora_cli import output
from dora_cli.commands.cluster.arguments import (
    FleetFile,
    ForceHolds,
    OnlyDataflows,
    coordinator_of,
)
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort
from dora_cli.errors import CommandFailed


def main(
    path: FleetFile,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    only: OnlyDataflows = None,
    force: ForceHolds = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for the end of the roll-out.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Change the fleet to what the file says: shows the differences, asks, and follows.

    Nodes that do not change keep running. The coordinator carries it out, so that it continues
    after Ctrl-C and on machines that return later.
    """
    from dora_cli.live import fleet
    from dora_config.protocol.fleet import ApplyFleet, FleetReport

    names = tuple(only or ())
    read = fleet.read(path, names)
    fleet.note_unversioned(read.fleet)
    with coordinator_of(read.loaded.cluster, coordinator_addr, coordinator_port) as client:
        found = fleet.compare(client, read, names)
        if not fleet.show(found):
            return
        if not yes:
            _ask()
        fleet.send_code(client, read)
        request = ApplyFleet(
            fleet=read.fleet,
            only=names,
            generation=found.generation,
            by=fleet.operator(),
            force=force,
        )
        started = client.request(request, FleetReport)
        output.write(f"applying generation {started.generation}")
        if not detach:
            fleet.finish(client, started)


def _ask() -> None:
    """Raise CommandFailed unless the user agrees."""
    if not sys.stdin.isatty():
        output.failure("not applied: this is not a terminal; confirm the changes with --yes")
        raise CommandFailed
    if not typer.confirm("Apply these changes?"):
        raise CommandFailed
