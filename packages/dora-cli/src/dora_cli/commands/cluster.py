"""Commands of `dora cluster`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.completion import running_dataflows
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    connect,
    with_client,
)
from dora_cli.errors import CommandFailed
from dora_config.errors import DoraError
from dora_config.protocol.rest import paths
from dora_config.yaml.quantities import parse_duration

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_config.cluster.models import Cluster, Machine


ClusterFile = Annotated[Path, ":PATH: The cluster file."]

FleetFile = Annotated[Path, ":PATH: A cluster file with `dataflows`, or a file of only these."]

OptionalFleetFile = Annotated[
    Path | None,
    ":[PATH]: The cluster file, whose coordinator is asked by default, or a file of only "
    "`dataflows`.",
]

OnlyDataflows = Annotated[list[str] | None, ":--only NAME: Only this dataflow (repeatable)."]

WheelHouse = Annotated[
    Path | None, ":--offline DIR: Folder of wheels to install; nothing is downloaded."
]

SomeMachines = Annotated[list[str] | None, ":--machine, -m ID: Only this machine (repeatable)."]

KeepGoing = Annotated[bool, ":--keep-going: Continue with the other machines, however many fail."]

ForceHolds = Annotated[bool, ":--force: Do not wait for nodes that hold updates."]

TakeOver = Annotated[
    bool,
    ":--take-over: Also use machines of another cluster or operator; ends the daemons of "
    "other clusters there, with their dataflows.",
]


def load_cluster_file(path: Path) -> Cluster:
    """Load a cluster file, and record its machines for `start`, `status` and `down`."""
    from dora_cli.cluster.ownership import known_clusters
    from dora_config.cluster.loader import load_cluster

    loaded = load_cluster(path)
    for problem in loaded.warnings:
        output.remark(str(problem))
    cluster = followed(loaded.cluster, path)
    try:
        known_clusters.keep(cluster, path)
    except OSError as error:
        output.warn(
            f"the machines of {path} were not recorded, so `dora start` cannot find them: {error}"
        )
    return cluster


def followed(cluster: Cluster, path: Path) -> Cluster:
    """Return the cluster with its coordinator where `dora cluster promote` has put it."""
    from dora_cli.cluster.decisions.promotion import promoted
    from dora_config.access import read_moved

    coordinator = cluster.coordinator
    moved = read_moved(coordinator.addr, coordinator.port)
    if moved is None:
        return cluster
    output.remark(
        f'the coordinator of {path} is on "{moved.machine}" ({moved.host}) since `dora cluster '
        f"promote` (the file names {coordinator.addr})"
    )
    return promoted(cluster, moved)


def coordinator_of(cluster: Cluster | None, addr: str | None, port: int | None) -> Client:
    """Return a client for the coordinator of a cluster file, unless options name another one."""
    if cluster is not None:
        addr, port = addr or cluster.coordinator.addr, port or cluster.coordinator.port
    return connect(addr, port)


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
    recreate_store: bool = False,
    offline: WheelHouse = None,
    take_over: TakeOver = False,
) -> None:
    """Start the coordinator and a daemon on every machine, over SSH.

    The coordinator runs on this machine, or as the service that `dora cluster install` has set up.

    :--recreate-store: Start with an empty store; the old one is renamed.
    """
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.up import bring_up
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("up", path, take_over, surveys_all=True)
    installer = Installer(offline)
    cluster = load_cluster_file(path)
    fail_unless(bring_up(cluster, installer, command, recreate_store=recreate_store))


@with_client(path=OptionalFleetFile)
def status(client: Client, output_format: options.Output = options.TableFormat.TABLE) -> None:
    """Show the state of the coordinator's daemons and of the links between them."""
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.operations.status import show
    from dora_cli.cluster.ownership import known_clusters
    from dora_config.protocol.control import ClusterReport, ClusterStatus
    from dora_config.protocol.fleet import FleetReport, GetFleet

    report = client.request(ClusterStatus(), ClusterReport)
    fleet = client.request(GetFleet(), FleetReport)
    show(report, fleet, as_json=output_format is options.TableFormat.JSON)
    if (known := known_clusters.find(client.endpoint)) is not None:
        leftovers.report_connected(known, report.machines)


def down(
    path: Path | None = None,
    purge: bool = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """End all dataflows, the daemons and the coordinator, and check every machine.

    :[PATH]: The cluster file; by default the last one used with this coordinator.
    :--purge: Also remove the dora that `up` installed.
    """
    from dora_cli.cluster.operations.down import bring_down
    from dora_config.access import endpoint

    given = None if path is None else load_cluster_file(path)
    if given is not None:
        coordinator_addr = coordinator_addr or given.coordinator.addr
        coordinator_port = coordinator_port or given.coordinator.port
    fail_unless(bring_down(endpoint(coordinator_addr, coordinator_port), given, purge=purge))


def remove(
    path: ClusterFile,
    machine: list[str],
) -> None:
    """Remove machines from the cluster and end their daemons, with their dataflows.

    The coordinator and all links refuse a removed machine, even if it was stolen or cannot be
    reached. If it can be reached, its daemon, service, token and state are removed too. Delete it
    in the cluster file as well: otherwise `dora cluster up` or `install` adds it with a new key; if
    it could not be reached, only after its daemon's state was deleted there.

    :ID...: Machine ids.
    """
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("remove", path, refuses=False, surveys_all=True)
    fail_unless(leftovers.remove(load_cluster_file(path), command, machine))


def install(
    path: ClusterFile,
    user: bool = False,
    no_coordinator: bool = False,
    offline: WheelHouse = None,
    take_over: TakeOver = False,
) -> None:
    """Install the coordinator and the daemon of every machine as systemd services.

    :--user: Services of the SSH user's own systemd; needs no sudo.
    :--no-coordinator: Install the daemons only.
    """
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.install import install_services
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("install", path, take_over, surveys_all=True)
    installer, both = Installer(offline), not no_coordinator
    cluster = load_cluster_file(path)
    fail_unless(install_services(cluster, installer, command, user=user, coordinator=both))


def uninstall(path: ClusterFile, take_over: TakeOver = False) -> None:
    """Stop and remove the services and everything that `install` put on the machines."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.install import uninstall_services
    from dora_cli.cluster.ownership.reservation import ClusterCommand

    command = ClusterCommand("uninstall", path, take_over)
    fail_unless(uninstall_services(load_cluster_file(path), Installer(), command))


@with_client()
def restart(
    client: Client,
    dataflow: Annotated[str, typer.Argument(autocompletion=running_dataflows)],
) -> None:
    """Stop a dataflow and start it again from the coordinator's record.

    :DATAFLOW: UUID or name.
    """
    output.write(f"Restarting dataflow `{dataflow}`")
    answer = client.post(paths.url(paths.DATAFLOWS, dataflow, "restart"))
    output.write(f"dataflow restarted: {answer.old} -> {answer.new}")
    for warning in answer.warnings:
        output.warn(warning)


def doctor(path: ClusterFile) -> None:
    """Check the coordinator, the machines and their links; print problems and remedies."""
    from dora_cli.cluster.operations.doctor import diagnose

    fail_unless(diagnose(load_cluster_file(path)))


SETTINGS = {"exec_": {"context_settings": {"ignore_unknown_options": True}}}


def exec_(
    path: ClusterFile,
    command: list[str],
    machine: SomeMachines = None,
    timeout: options.Duration | None = None,
) -> None:
    """Run a command on every machine, without a terminal; each line of output names its machine.

    After the time limit, or Ctrl-C, the command continues to run on the machines. To end it there:
    `dora cluster exec PATH -- timeout 60 COMMAND`.

    :-- COMMAND...: The command and its arguments.
    :--timeout: Time to wait for the command.
    """
    from dora_cli.cluster.operations import fanout

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    fail_unless(fanout.execute(loaded, machines, command, timeout))


def logs(
    path: ClusterFile,
    machine: SomeMachines = None,
    tail: Annotated[int, typer.Option(min=0)] = 50,
    follow: bool = False,
) -> None:
    """Show the output of the daemon on every machine.

    :--tail, -n: Lines of each machine.
    :--follow, -F: Print new lines as they arrive.
    """
    from dora_cli.cluster.operations import fanout

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    fail_unless(fanout.show_logs(loaded, machines, tail, follow=follow))


CHANGES = 2
"""Exit code if the file differs from what runs."""


def diff(
    path: FleetFile,
    only: OnlyDataflows = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show what `dora cluster apply` would change, node by node.

    Exits with 0 if nothing would change, with 2 if something would.
    """
    from dora_cli.live import fleet

    names = tuple(only or ())
    read = fleet.read(path, names)
    fleet.note_unversioned(read.fleet)
    with coordinator_of(read.loaded.cluster, coordinator_addr, coordinator_port) as client:
        found = fleet.compare(client, read, names)
    if fleet.show(found):
        raise typer.Exit(CHANGES)


def apply(
    path: FleetFile,
    yes: bool = False,
    only: OnlyDataflows = None,
    force: ForceHolds = False,
    detach: bool = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Change the fleet to what the file says: shows the differences, asks, and follows.

    Nodes that do not change keep running. The coordinator carries it out, so that it continues
    after Ctrl-C and on machines that return later.

    :--yes, -y: Do not ask.
    :--detach: Do not wait for the end of the roll-out.
    """
    from dora_cli.live import fleet
    from dora_config.protocol.fleet import ApplyFleet, FleetReport

    names = tuple(only or ())
    read = fleet.read(path, names)
    fleet.note_unversioned(read.fleet)
    with coordinator_of(read.loaded.cluster, coordinator_addr, coordinator_port) as client:
        found = fleet.compare(client, read, names)
        if not fleet.show(found):
            return
        if not yes:
            _ask()
        fleet.send_code(client, read)
        request = ApplyFleet(
            fleet=read.fleet,
            only=names,
            generation=found.generation,
            by=fleet.operator(),
            force=force,
        )
        started = client.request(request, FleetReport)
        output.write(f"applying generation {started.generation}")
        if not detach:
            fleet.finish(client, started)


def _ask() -> None:
    """Raise CommandFailed unless the user agrees."""
    if not sys.stdin.isatty():
        output.failure("not applied: this is not a terminal; confirm the changes with --yes")
        raise CommandFailed
    if not typer.confirm("Apply these changes?"):
        raise CommandFailed


@with_client(path=OptionalFleetFile)
def history(client: Client, output_format: options.Output = options.TableFormat.TABLE) -> None:
    """Show who changed the fleet, when, what, and how it went."""
    from dora_config.protocol.fleet import FleetHistory, GetFleetHistory

    entries = client.request(GetFleetHistory(), FleetHistory).generations
    if output_format is options.TableFormat.JSON:
        for entry in entries:
            output.json_line(entry.model_dump())
        return
    for entry in entries:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
        output.write(f"generation {entry.generation}  {at}  {entry.action} by {entry.by}")
        for change in entry.changes:
            output.write(f"  {change}")
        output.write(f"  -> {entry.outcome}")
    if not entries:
        output.write("nothing was applied")


@with_client(path=OptionalFleetFile)
def rollback(
    client: Client,
    to: int | None = None,
    detach: bool = False,
) -> None:
    """Apply an earlier generation of the fleet again, with the code that it had.

    `dora cluster downgrade` returns to an earlier version of dora.

    :--to N: This generation (default: the one before).
    :--detach: Do not wait for the end of the roll-out.
    """
    from dora_cli.live import fleet
    from dora_config.protocol.fleet import FleetReport, RollBackFleet

    started = client.request(RollBackFleet(to=to, by=fleet.operator()), FleetReport)
    output.write(f"applying generation {started.generation}")
    if not detach:
        fleet.finish(client, started)


@with_client(path=OptionalFleetFile)
def pause(client: Client) -> None:
    """Stop changing machines; what runs keeps running. `dora cluster resume` continues."""
    output.write(f"generation {_paused(client, paused=True)} is paused")


@with_client(path=OptionalFleetFile)
def resume(client: Client) -> None:
    """Continue a roll-out that was paused or failed; what failed is tried again."""
    output.write(f"generation {_paused(client, paused=False)} is resumed")


def _paused(client: Client, *, paused: bool) -> int:
    """Pause or resume; return the generation."""
    from dora_cli.live import fleet
    from dora_config.protocol.fleet import FleetReport, PauseFleet

    return client.request(PauseFleet(paused=paused, by=fleet.operator()), FleetReport).generation


def upgrade(
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
    from dora_cli.cluster.operations.upgrade import upgrade_cluster, waves_of
    from dora_cli.cluster.ownership.reservation import ClusterCommand, reserve

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    with reserve(loaded, ClusterCommand("upgrade", path, take_over), machines):
        installer = Installer(offline)
        waves = waves_of(loaded, keep_going=keep_going, force=force)
        fail_unless(upgrade_cluster(loaded, installer, machines, waves))


def downgrade(
    path: ClusterFile,
    machine: SomeMachines = None,
    to: str | None = None,
    keep_going: KeepGoing = False,
    force: ForceHolds = False,
    take_over: TakeOver = False,
) -> None:
    """Undo the last upgrade: return its machines to the version before.

    :--to VERSION: Switch to this version, which must be on the machines already.
    """
    from dora_cli.cluster.operations.upgrade import roll_back, waves_of
    from dora_cli.cluster.ownership.reservation import ClusterCommand, reserve

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    with reserve(loaded, ClusterCommand("downgrade", path, take_over), machines):
        waves = waves_of(loaded, keep_going=keep_going, force=force)
        fail_unless(roll_back(loaded, machines, waves, to=to))


def promote(
    machine: str,
    path: Path = Path("cluster.yml"),
    yes: bool = False,
    offline: WheelHouse = None,
) -> None:
    """Start the coordinator on a standby, because its machine is lost.

    It begins with the newest copy that a reachable machine keeps. Nodes run on; the daemons
    follow, and the lost coordinator changes nothing if it returns. Repeating the command is safe.

    :ID: A machine of `coordinator.standby`.
    :--file, -f PATH: The cluster file.
    :--yes, -y: Do not ask.
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


@with_client()
def rotate_token(
    client: Client,
    grace: str = "24h",
) -> None:
    """Replace the cluster's token; dataflows keep running.

    Connected daemons receive the new token at once, others when they connect within the grace
    duration. The token of this account is replaced too.

    :--grace DURATION: How long the present token stays valid.
    """
    from dora_config.access import AccessError, remember_token
    from dora_config.protocol.control import (
        ClusterReport,
        ClusterStatus,
        RotateToken,
        TokenRotated,
    )

    address = client.endpoint
    request = RotateToken(grace=options.checked(parse_duration)(grace))
    answer = client.request(request, TokenRotated)
    try:
        remember_token(address, answer.token)
    except (AccessError, OSError) as error:
        output.warn(
            f"the new token could not be stored in this account ({error}); copy the token "
            "file of the coordinator's account before the old token expires"
        )
    output.write(f"New token sent to {output.counted(len(answer.daemons), 'connected daemon')}")
    output.write(f"The old token expires after {grace}")
    report = client.request(ClusterStatus(), ClusterReport)
    absent = {one.daemon for one in report.machines if not one.ended} - {*answer.daemons}
    if absent:
        names = ", ".join(sorted(absent))
        output.warn(
            f"not sent to {names}: a daemon receives it when it connects before the old token "
            "expires; afterwards run `dora cluster up` or `install`"
        )


def ca(
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Print the certificate of the cluster's authority, for `curl --cacert`."""
    import ssl

    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import AccessError, endpoint
    from dora_config.control_plane import authority_certificate

    address = endpoint(coordinator_addr, coordinator_port)
    if address.authority is None:
        raise AccessError(
            f"this account has no token with the hash of an authority for {address}; start the "
            "coordinator, or copy its token (~/.config/dora/token) to this account"
        )
    try:
        certificate = authority_certificate(address)
    except OSError as error:
        raise CoordinatorUnreachable(f"no coordinator answers at {address} ({error})") from error
    output.write(ssl.DER_cert_to_PEM_cert(certificate).rstrip())
