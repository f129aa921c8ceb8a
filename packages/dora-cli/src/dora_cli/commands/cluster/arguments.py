"""Arguments and options of several `dora cluster` commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config.cluster.models import Cluster, Machine


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
    bool, typer.Option("--keep-going", help="Continue with the next machine when one fails.")
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
    try:
        known_clusters.keep(loaded.cluster, path)
    except OSError as error:
        output.warn(
            f"the machines of {path} were not recorded, so `dora start` cannot find them: {error}"
        )
    return loaded.cluster


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
