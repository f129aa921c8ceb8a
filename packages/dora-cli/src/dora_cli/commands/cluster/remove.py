"""`dora cluster remove`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import options
from dora_cli.commands.cluster.arguments import ClusterFile, fail_unless, load_cluster_file

app = options.application()


@app.command()
def remove(
    path: ClusterFile,
    machine: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Machine ids.", show_default=False)
    ],
) -> None:
    """Remove daemons of machines that are no longer in the cluster file, with their dataflows."""
    from dora_cli.cluster import leftovers
    from dora_cli.cluster.guard import Errand

    fail_unless(
        leftovers.remove(load_cluster_file(path), Errand("remove", path, refuses=False), machine)
    )
