"""`dora cluster install`."""

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

OfUser = Annotated[
    bool, typer.Option("--user", help="Services of the SSH user's own systemd; needs no sudo.")
]


def main(
    path: ClusterFile,
    user: OfUser = False,
    no_coordinator: Annotated[
        bool, typer.Option("--no-coordinator", help="Install the daemons only.")
    ] = False,
    offline: WheelHouse = None,
    take_over: TakeOver = False,
) -> None:
    """Install the coordinator and the daemon of every machine as systemd services."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.install import install_services
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("install", path, take_over, surveys_all=True)
    installer, both = Installer(offline), not no_coordinator
    cluster = load_cluster_file(path)
    fail_unless(install_services(cluster, installer, command, user=user, coordinator=both))
