"""`dora cluster up`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    TakeOver,
    WheelHouse,
    fail_unless,
    load_cluster_file,
)


def main(
    path: ClusterFile,
    recreate_store: Annotated[
        bool,
        typer.Option("--recreate-store", help="Start with an empty store; the old one is renamed."),
    ] = False,
    offline: WheelHouse = None,
    take_over: TakeOver = False,
) -> None:
    """Start the coordinator and a daemon on every machine, over SSH.

    The coordinator runs on this machine, or as the service that `dora cluster install` has set up.
    """
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.up import bring_up
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("up", path, take_over, surveys_all=True)
    installer = Installer(offline)
    cluster = load_cluster_file(path)
    fail_unless(bring_up(cluster, installer, command, recreate_store=recreate_store))
