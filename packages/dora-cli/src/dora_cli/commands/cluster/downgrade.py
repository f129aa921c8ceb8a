"""`dora cluster downgrade`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    ForceHolds,
    KeepGoing,
    SomeMachines,
    TakeOver,
    fail_unless,
    load_cluster_file,
    select_machines,
)


def main(
    path: ClusterFile,
    machine: SomeMachines = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="VERSION",
            help="Switch to this version, which must be on the machines already.",
        ),
    ] = None,
    keep_going: KeepGoing = False,
    force: ForceHolds = False,
    take_over: TakeOver = False,
) -> None:
    """Undo the last upgrade: return its machines to the version before."""
    from dora_cli.cluster.operations.daemon_switch import waves_of
    from dora_cli.cluster.operations.rollback import roll_back
    from dora_cli.cluster.ownership.reservation import ClusterCommand, reserve

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    with reserve(loaded, ClusterCommand("downgrade", path, take_over), machines):
        waves = waves_of(loaded, keep_going=keep_going, force=force)
        fail_unless(roll_back(loaded, machines, waves, to=to))
