"""`dora cluster upgrade`."""

from __future__ import annotations

from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    ForceHolds,
    KeepGoing,
    SomeMachines,
    TakeOver,
    WheelHouse,
    fail_unless,
    load_cluster_file,
    select_machines,
)


def main(
    path: ClusterFile,
    machine: SomeMachines = None,
    keep_going: KeepGoing = False,
    offline: WheelHouse = None,
    force: ForceHolds = False,
    take_over: TakeOver = False,
) -> None:
    """Install this version of dora on every machine; dataflows keep running.

    Machines follow one by one, or in the waves of `rollout` in the cluster file.
    """
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.daemon_switch import waves_of
    from dora_cli.cluster.operations.upgrade import upgrade_cluster
    from dora_cli.cluster.ownership.reservation import ClusterCommand, reserve

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    with reserve(loaded, ClusterCommand("upgrade", path, take_over), machines):
        installer = Installer(offline)
        waves = waves_of(loaded, keep_going=keep_going, force=force)
        fail_unless(upgrade_cluster(loaded, installer, machines, waves))
