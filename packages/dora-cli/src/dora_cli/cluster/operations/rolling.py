"""Switches the machines of a cluster to another version, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import Layout
from dora_cli.cluster.decisions.daemon_argv import ssh_name, without_name
from dora_cli.cluster.machines.remote_machine import RemoteMachine, connect_to
from dora_cli.cluster.operations.version_switch import Switch, VersionSwitch
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import error_text


def switch_one_by_one(
    cluster: Cluster,
    machines: Sequence[Machine],
    label: Callable[[Machine], str],
    switch: Switch,
    *,
    keep_going: bool,
    collector: Installer | None = None,
) -> bool:
    """Switch each machine; return whether all succeeded.

    ``collector`` then removes unused versions from each machine.
    """
    succeeded = 0
    for number, machine in enumerate(machines, 1):
        output.write(f"{label(machine)}...")
        try:
            with connect_to(machine) as connection:
                remote = RemoteMachine(cluster, machine, connection)
                work = VersionSwitch(remote)
                if work.run(switch) and collector is not None:
                    _collect(remote, collector, work.layout)
            succeeded += 1
        except (DoraError, OSError) as error:
            output.write(f"  FAILED: {without_name(error_text(error), ssh_name(machine))}")
            left = [other.id for other in machines[number:]]
            if left and not keep_going:
                output.write(
                    f"Stopped there; not touched: {', '.join(left)} (--keep-going continues)"
                )
                break
    output.write(f"{succeeded}/{len(machines)} succeeded.")
    return succeeded == len(machines)


def _collect(remote: RemoteMachine, collector: Installer, layout: Layout) -> None:
    try:
        collector.collect(remote.connection, layout)
    except (DoraError, OSError) as problem:
        reason = without_name(error_text(problem), ssh_name(remote.machine))
        output.warn(f"unused versions were not removed there: {reason}")
