"""`dora cluster remove`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.commands.cluster.arguments import ClusterFile, fail_unless, load_cluster_file


def main(
    path: ClusterFile,
    machine: Annotated[list[str], typer.Argument(metavar="ID...", help="Machine ids.")],
) -> None:
    """End daemons that are not in the cluster file any more, with their dataflows."""
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("remove", path, refuses=False, surveys_all=True)
    fail_unless(leftovers.remove(load_cluster_file(path), command, machine))
