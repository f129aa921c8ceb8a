"""`dora cluster logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    SomeMachines,
    fail_unless,
    load_cluster_file,
    select_machines,
)


def main(
    path: ClusterFile,
    machine: SomeMachines = None,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Lines of each machine.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-F", help="Print new lines as they arrive.")
    ] = False,
) -> None:
    """Show the output of the daemon on every machine."""
    from dora_cli.cluster.operations import fanout

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    fail_unless(fanout.show_logs(loaded, machines, tail, follow=follow))
