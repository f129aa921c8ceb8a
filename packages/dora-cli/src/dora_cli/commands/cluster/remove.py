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
    reached. If it can be reached, its daemon, service, token and state are removed too. Delete it
    in the cluster file as well: otherwise `dora cluster up` or `install` adds it with a new key; if
    it could not be reached, only after its daemon's state was deleted there.
    """
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("remove", path, refuses=False, surveys_all=True)
    fail_unless(leftovers.remove(load_cluster_file(path), command, machine))
