"""`dora cluster promote`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_cli.commands.cluster.arguments import WheelHouse, fail_unless, load_cluster_file


def main(
    machine: Annotated[
        str, typer.Argument(metavar="ID", help="A machine of `coordinator.standby`.")
    ],
    path: Annotated[
        Path, typer.Option("--file", "-f", metavar="PATH", help="The cluster file.")
    ] = Path("cluster.yml"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    offline: WheelHouse = None,
) -> None:
    """Start the coordinator on a standby, because its machine is lost.

    It begins with the newest copy that a reachable machine keeps. Nodes run on; the daemons
    follow, and the lost coordinator changes nothing if it returns. Repeating the command is safe.
    """
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.promote import promote
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    def confirm() -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            output.failure("nothing was changed: this is not a terminal; confirm with --yes")
            return False
        return typer.confirm(f'Let "{machine}" take over?')

    command = ClusterCommand("promote", path, refuses=False)
    cluster = load_cluster_file(path)
    fail_unless(promote(cluster, Installer(offline), command, machine, confirm))
