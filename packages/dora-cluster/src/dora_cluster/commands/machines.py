"""Commands of `dora cluster` that work on machines over SSH."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli.command import function_command
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort
from dora_cli.errors import CommandFailed
from dora_cluster.bundle.install import Installer
from dora_cluster.coordinator.queries import followed
from dora_cluster.operations import fanout, leftovers
from dora_cluster.operations.down import bring_down
from dora_cluster.operations.install import install_services, uninstall_services
from dora_cluster.operations.promote import promote_standby
from dora_cluster.operations.up import bring_up
from dora_cluster.operations.upgrade import roll_back, upgrade_cluster
from dora_cluster.operations.version_rollout import waves_of
from dora_cluster.ownership import known_clusters
from dora_cluster.ownership.reservation import ClusterCommand, reserve
from dora_config.access import endpoint
from dora_config.cluster.loader import load_cluster
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError

ClusterFile = Annotated[Path, typer.Argument(metavar="PATH", help="The cluster file.")]
WheelHouse = Annotated[
    Path | None,
    typer.Option(
        "--offline", metavar="DIR", help="Folder of wheels to install; nothing is downloaded."
    ),
]
SomeMachines = Annotated[
    list[str] | None,
    typer.Option("--machine", "-m", metavar="ID", help="Only this machine (repeatable)."),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Continue with the other machines, however many fail.")
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Also use machines of another cluster or operator; ends the daemons of "
        "other clusters there, with their dataflows.",
    ),
]


def load_cluster_file(path: Path) -> Cluster:
    """Load a cluster file, and record its machines for `start`, `status` and `down`."""
    loaded = load_cluster(path)
    for problem in loaded.warnings:
        output.remark(str(problem))
    cluster = followed(loaded.cluster)
    if cluster is loaded.cluster:
        cluster = known_clusters.with_former_places(cluster)
    else:
        place, former = cluster.coordinator, loaded.cluster.coordinator
        names = [f'"{one.id}" ' for one in cluster.machines if one.address == place.addr]
        output.remark(
            f"the coordinator of {path} is on {''.join(names[:1])}({place.addr}) since `dora "
            f"cluster promote` (the file names {former.addr})"
        )
    try:
        known_clusters.keep(cluster, path)
    except OSError as error:
        output.warn(
            f"the machines of {path} were not recorded, so `dora start` cannot find them: {error}"
        )
    return cluster


def is_healthy(file: Path) -> bool:
    """Check the machines of a cluster file, for `dora doctor`; print problems and remedies."""
    from dora_cluster.operations.doctor import diagnose

    return diagnose(load_cluster_file(file))


def select_machines(cluster: Cluster, names: Sequence[str] | None) -> tuple[Machine, ...]:
    """Return the machines with these ids (None: all); raises DoraError for an unknown id."""
    if not names:
        return cluster.machines
    unknown = [name for name in names if name not in {one.id for one in cluster.machines}]
    if unknown:
        known = ", ".join(one.id for one in cluster.machines)
        raise DoraError(f'no machine "{unknown[0]}" in the cluster file; its machines are: {known}')
    return tuple(one for one in cluster.machines if one.id in names)


def fail_unless(ok: bool) -> None:
    """Raise CommandFailed, after the problems were printed."""
    if not ok:
        raise CommandFailed


def up(
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
    command = ClusterCommand("up", path, take_over, surveys_all=True)
    installer = Installer(offline)
    cluster = load_cluster_file(path)
    fail_unless(bring_up(cluster, installer, command, recreate_store=recreate_store))


def down(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="The cluster file; by default the last one used with this coordinator.",
        ),
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove the dora that `up` installed.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """End all dataflows, the daemons and the coordinator, and check every machine."""
    given = None if path is None else load_cluster_file(path)
    if given is not None:  # use the present address of the coordinator
        coordinator_addr = coordinator_addr or given.coordinator.addr
        coordinator_port = coordinator_port or given.coordinator.port
    fail_unless(bring_down(endpoint(coordinator_addr, coordinator_port), given, purge=purge))


def remove(
    path: ClusterFile,
    machine: Annotated[list[str], typer.Argument(metavar="ID...", help="Machine ids.")],
) -> None:
    """Remove machines from the cluster and end their daemons, with their dataflows.

    The coordinator and all links refuse a removed machine, even if it was stolen or cannot be
    reached. If it can be reached, its daemon, service, token and state are removed too. Delete it
    in the cluster file as well: otherwise `dora cluster up` or `install` adds it with a new key; if
    it could not be reached, only after its daemon's state was deleted there.
    """
    command = ClusterCommand("remove", path, refuses=False, surveys_all=True)
    fail_unless(leftovers.remove(load_cluster_file(path), command, machine))


def install(
    path: ClusterFile,
    user: Annotated[
        bool, typer.Option("--user", help="Services of the SSH user's own systemd; needs no sudo.")
    ] = False,
    no_coordinator: Annotated[
        bool, typer.Option("--no-coordinator", help="Install the daemons only.")
    ] = False,
    offline: WheelHouse = None,
    take_over: TakeOver = False,
) -> None:
    """Install the coordinator and the daemon of every machine as systemd services."""
    command = ClusterCommand("install", path, take_over, surveys_all=True)
    installer, both = Installer(offline), not no_coordinator
    cluster = load_cluster_file(path)
    fail_unless(install_services(cluster, installer, command, user=user, coordinator=both))


def uninstall(path: ClusterFile, take_over: TakeOver = False) -> None:
    """Stop and remove the services and everything that `install` put on the machines."""
    command = ClusterCommand("uninstall", path, take_over)
    cluster, file = load_cluster_file(path), load_cluster(path).cluster
    fail_unless(uninstall_services(file, cluster, Installer(), command))


def _exec(
    path: ClusterFile,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")
    ],
    machine: SomeMachines = None,
    timeout: Annotated[
        float | None, options.duration("--timeout", help="Time to wait for the command.")
    ] = None,
) -> None:
    """Run a command on every machine, without a terminal; each line of output names its machine.

    After the time limit, or Ctrl-C, the command continues to run on the machines. To end it there:
    `dora cluster exec PATH -- timeout 60 COMMAND`.
    """
    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    fail_unless(fanout.execute(loaded, machines, command, timeout))


exec_ = function_command("exec", _exec, context_settings={"ignore_unknown_options": True})


def logs(
    path: ClusterFile,
    machine: SomeMachines = None,
    tail: Annotated[
        int,
        typer.Option("--tail", min=0, metavar="N", help="Only the last N lines of each machine."),
    ] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-F", "-f", help="Print new lines as they arrive.")
    ] = False,
) -> None:
    """Show the output of the daemon on every machine."""
    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    fail_unless(fanout.show_logs(loaded, machines, tail, follow=follow))


def upgrade(
    path: ClusterFile,
    machine: SomeMachines = None,
    keep_going: KeepGoing = False,
    offline: WheelHouse = None,
    force: options.ForceHolds = False,
    take_over: TakeOver = False,
) -> None:
    """Install this version of dora on every machine; dataflows keep running.

    Machines follow one by one, or in the waves of `rollout` in the cluster file.
    """
    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    with reserve(loaded, ClusterCommand("upgrade", path, take_over), machines):
        installer = Installer(offline)
        waves = waves_of(loaded, keep_going=keep_going, force=force)
        fail_unless(upgrade_cluster(loaded, installer, machines, waves))


def downgrade(
    path: ClusterFile,
    machine: SomeMachines = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="VERSION",
            help="Switch to this version, which must be on the machines already.",
        ),
    ] = None,
    keep_going: KeepGoing = False,
    force: options.ForceHolds = False,
    take_over: TakeOver = False,
) -> None:
    """Undo the last upgrade: return its machines to the version before."""
    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    with reserve(loaded, ClusterCommand("downgrade", path, take_over), machines):
        waves = waves_of(loaded, keep_going=keep_going, force=force)
        fail_unless(roll_back(loaded, machines, waves, to=to))


def promote(
    machine: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A machine of `coordinator.standby`.")
    ] = None,
    path: Annotated[Path, typer.Option("--file", metavar="PATH", help="The cluster file.")] = Path(
        "cluster.yml"
    ),
    back: Annotated[
        bool,
        typer.Option(
            "--back", help="Return to the coordinator's machine in the file, also a new one."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    offline: WheelHouse = None,
) -> None:
    """Let the coordinator continue on a standby, or with --back where the file names it.

    If the coordinator answers, its present state is used; otherwise the newest store or copy that a
    reachable machine has. Nodes run on; the daemons follow, and a replaced coordinator changes
    nothing if it returns. Repeating the command is safe.
    """
    if back == (machine is not None):
        raise typer.BadParameter("give the id of a standby, or --back")
    command = ClusterCommand("promote", path, refuses=False)
    cluster, file = load_cluster_file(path), load_cluster(path).cluster
    name = f'"{machine}"' if machine is not None else file.coordinator.addr
    confirm = partial(options.confirmed, f"Let {name} take over?", yes=yes)
    fail_unless(promote_standby(file, cluster, Installer(offline), command, machine, confirm))
