"""Arguments and options of several `dora cluster` commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_config.cluster.models import Cluster, Machine


ClusterFile = Annotated[Path, typer.Argument(metavar="PATH", help="The cluster file.")]

FleetFile = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", help="A cluster file with `dataflows`, or a file of only these."
    ),
]

OptionalFleetFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]",
        help="The cluster file, whose coordinator is asked by default, or a file "
        "of only `dataflows`.",
    ),
]

OnlyDataflows = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only this dataflow (repeatable)."),
]

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
    bool,
    typer.Option("--keep-going", help="Continue with the other machines, however many fail."),
]

ForceHolds = Annotated[
    bool, typer.Option("--force", help="Do not wait for nodes that hold updates.")
]

TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Also use machines of another cluster or operator; ends the daemons of other "
        "clusters there, with their dataflows.",
    ),
]


def load_cluster_file(path: Path) -> Cluster:
    """Load a cluster file, and record its machines for `start`, `status` and `down`."""
    from dora_cli.cluster.ownership import known_clusters
    from dora_config import load_cluster

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
    from dora_cli.coordinator.options import connect

    if cluster is not None:
        addr, port = addr or cluster.coordinator.addr, port or cluster.coordinator.port
    return connect(addr, port)


def coordinator_in(path: Path | None, addr: str | None, port: int | None) -> Client:
    """As `coordinator_of`, for a cluster or fleet file; None: as all commands."""
    from dora_config.cluster.loader import load_cluster_of

    known = None if path is None else load_cluster_of(path)
    return coordinator_of(known, addr, port)


def select_machines(cluster: Cluster, names: Sequence[str] | None) -> tuple[Machine, ...]:
    """Return the machines with these ids (None: all); raises DoraError for an unknown id."""
    from dora_config import DoraError

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
