"""`dora cluster uninstall`."""

from __future__ import annotations

from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    TakeOver,
    fail_unless,
    load_cluster_file,
)


def main(path: ClusterFile, take_over: TakeOver = False) -> None:
    """Stop and remove the services and everything that `install` put on the machines."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.uninstall import uninstall_services
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("uninstall", path, take_over)
    fail_unless(uninstall_services(load_cluster_file(path), Installer(), command))
