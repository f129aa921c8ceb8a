"""`dora cluster remove`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.commands.cluster.arguments import ClusterFile, fail_unless, load_cluster_file


def main(
    path: ClusterFile,
    machine: Annotated[list[str], typer.Argument(metavar="ID...", help="Machine ids.")],
) -> None:
    """Remove machines from the cluster and end their daemons, with their dataflows.

    The coordinator and all links refuse a removed machine, even if it was stolen or cannot be
    reached. A machine that is still in the cluster file returns with a new key: delete the state
    of its daemon, then run `dora cluster up` or `install`.
    """
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("remove", path, refuses=False, surveys_all=True)
    fail_unless(leftovers.remove(load_cluster_file(path), command, machine))
