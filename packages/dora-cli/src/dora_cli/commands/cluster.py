"""`dora cluster`: a coordinator and the machines around it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator import options as coordinator
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config.cluster.models import Cluster

app = options.application()

ClusterFile = Annotated[
    Path, typer.Argument(metavar="PATH", help="The cluster file.", show_default=False)
]
WheelHouse = Annotated[
    Path | None,
    typer.Option(
        "--offline",
        metavar="DIR",
        help="A folder of wheels to put on machines; nothing is fetched.",
        show_default=False,
    ),
]
OfUser = Annotated[
    bool, typer.Option("--user", help="Services of the SSH user's own systemd; needs no sudo.")
]
SomeMachines = Annotated[
    list[str] | None,
    typer.Option(
        "--machine",
        "-m",
        metavar="ID",
        help="Only this machine (repeatable).",
        show_default=False,
    ),
]

KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Go on with the next machine when one fails.")
]

TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Also use machines of another cluster or operator; ends the daemons of other "
        "clusters there, with their dataflows.",
    ),
]


@app.callback()
def cluster() -> None:
    """Look after a cluster of machines."""


def _load(path: Path) -> Cluster:
    """The cluster of a file; its machines are recorded, so that `start` and `down` find them."""
    from dora_cli.cluster.ownership import known_clusters as remembered
    from dora_config import load_cluster

    loaded = load_cluster(path)
    for problem in loaded.warnings:
        output.remark(str(problem))
    try:
        remembered.keep(loaded.cluster, path)
    except OSError as error:
        output.warn(f"cannot record the machines of {path} for `dora start`: {error}")
    return loaded.cluster


def _exit(ok: bool) -> None:
    if not ok:
        raise CommandFailed


@app.command()
def up(
    path: ClusterFile,
    recreate_store: Annotated[
        bool, typer.Option("--recreate-store", help="Put the coordinator's store aside.")
    ] = False,
    offline: WheelHouse = None,
    take_over: TakeOver = False,
) -> None:
    """Start the coordinator here and a daemon on every machine, over SSH."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations.up import bring_up
    from dora_cli.cluster.ownership.reservation import Errand

    errand = Errand("up", path, take_over)
    _exit(bring_up(_load(path), Installer(offline), errand, recreate_store=recreate_store))


@app.command()
def status(
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Show the daemons of the coordinator and how they are."""
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.operations.status import show
    from dora_cli.cluster.ownership import known_clusters
    from dora_config.access import endpoint
    from dora_config.protocol.control import ClusterReport, ClusterStatus

    with coordinator.client(coordinator_addr, coordinator_port) as client:
        report = client.ask(ClusterStatus(), ClusterReport)
    show(report, as_json=output_format is options.TableFormat.JSON)
    if (known := known_clusters.find(endpoint(coordinator_addr, coordinator_port))) is not None:
        leftovers.report_connected(known, report.daemons)


@app.command()
def down(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="The cluster file; by default the machines of the last cluster file.",
            show_default=False,
        ),
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove the program that `up` put there.")
    ] = False,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """End all dataflows, the daemons and the coordinator; nothing runs on any machine after it."""
    from dora_cli.cluster.operations.down import bring_down
    from dora_config.access import endpoint

    given = None if path is None else _load(path)
    if given is not None:
        coordinator_addr = coordinator_addr or given.coordinator.addr
        coordinator_port = coordinator_port or given.coordinator.port
    _exit(bring_down(endpoint(coordinator_addr, coordinator_port), given, purge=purge))


@app.command()
def remove(
    path: ClusterFile,
    machine: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Machine ids.", show_default=False)
    ],
) -> None:
    """Remove daemons of machines that are no longer in the cluster file, with their dataflows."""
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.ownership.reservation import Errand

    _exit(leftovers.remove(_load(path), Errand("remove", path, refuses=False), machine))


@app.command()
def install(
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
    from dora_cli.cluster.operations import install as work
    from dora_cli.cluster.ownership.reservation import Errand

    errand = Errand("install", path, take_over)
    installer, both = Installer(offline), not no_coordinator
    _exit(work.install(_load(path), installer, errand, user=user, coordinator=both))


@app.command()
def uninstall(path: ClusterFile, take_over: TakeOver = False) -> None:
    """Stop and remove the services, and all that was installed with them, on every machine."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations import install as work
    from dora_cli.cluster.ownership.reservation import Errand

    errand = Errand("uninstall", path, take_over)
    _exit(work.uninstall(_load(path), Installer(), errand))


@app.command()
def restart(
    dataflow: Annotated[
        str, typer.Argument(metavar="DATAFLOW", help="UUID or name.", show_default=False)
    ],
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Stop a dataflow and start it again from what the coordinator has stored."""
    from dora_config.protocol.control import RestartDataflow, Restarted

    output.write(f"Restarting dataflow `{dataflow}`")
    request = RestartDataflow(dataflow=coordinator.reference(dataflow))
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        answer = client.ask(request, Restarted)
    output.write(f"dataflow restarted: {answer.old} -> {answer.new}")
    for warning in answer.warnings:
        output.warn(warning)


@app.command()
def doctor(path: ClusterFile) -> None:
    """Check every machine and every pair of machines; say what to do about what is wrong."""
    from dora_cli.cluster.operations.doctor import examine

    _exit(examine(_load(path)))


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    path: ClusterFile,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")
    ],
    machine: SomeMachines = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Give up after.", show_default=False),
    ] = None,
) -> None:
    """Run a command on every machine, without a terminal; every line begins with its machine."""
    from dora_cli.cluster.operations import fanout as everywhere

    loaded = _load(path)
    machines = everywhere.chosen(loaded, machine or ())
    _exit(everywhere.execute(loaded, machines, command, timeout))


@app.command()
def logs(
    path: ClusterFile,
    machine: SomeMachines = None,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Lines of each machine.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Go on as lines come.")] = False,
) -> None:
    """Show what the daemons printed, of every machine."""
    from dora_cli.cluster.operations import fanout as everywhere

    loaded = _load(path)
    machines = everywhere.chosen(loaded, machine or ())
    _exit(everywhere.show_logs(loaded, machines, tail, follow=follow))


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
    from dora_cli.cluster.operations import fanout as everywhere
    from dora_cli.cluster.operations import upgrade as work
    from dora_cli.cluster.ownership.reservation import Errand, guarded

    loaded = _load(path)
    machines = everywhere.chosen(loaded, machine or ())
    with guarded(loaded, Errand("upgrade", path, take_over), machines):
        _exit(work.upgrade(loaded, Installer(offline), machines, keep_going=keep_going))


@app.command()
def rollback(
    path: ClusterFile,
    machine: SomeMachines = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="VERSION",
            help="Have this version, which the machines still keep.",
            show_default=False,
        ),
    ] = None,
    keep_going: KeepGoing = False,
    take_over: TakeOver = False,
) -> None:
    """Return the machines that the last upgrade reached to their version before it."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster.operations import fanout as everywhere
    from dora_cli.cluster.operations import rollback as work
    from dora_cli.cluster.ownership.reservation import Errand, guarded

    loaded = _load(path)
    machines = everywhere.chosen(loaded, machine or ())
    with guarded(loaded, Errand("rollback", path, take_over), machines):
        _exit(work.rollback(loaded, Installer(), machines, to=to, keep_going=keep_going))
