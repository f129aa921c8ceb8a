"""`dora cluster upgrade`."""

from __future__ import annotations

from dora_cli import options
from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    KeepGoing,
    SomeMachines,
    TakeOver,
    WheelHouse,
    fail_unless,
    load_cluster_file,
)

app = options.application()


@app.command()
def upgrade(
    path: ClusterFile,
    machine: SomeMachines = None,
    keep_going: KeepGoing = False,
    offline: WheelHouse = None,
    take_over: TakeOver = False,
) -> None:
    """Put this version of dora on every machine, one after the other; dataflows go on."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster import fanout
    from dora_cli.cluster import upgrade as work
    from dora_cli.cluster.guard import Errand, guarded

    loaded = load_cluster_file(path)
    machines = fanout.chosen(loaded, machine or ())
    with guarded(loaded, Errand("upgrade", path, take_over), machines):
        fail_unless(work.upgrade(loaded, Installer(offline), machines, keep_going=keep_going))
