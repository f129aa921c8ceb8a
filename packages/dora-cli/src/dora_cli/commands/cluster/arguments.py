"""Arguments and options of several `dora cluster` commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config.cluster.models import Cluster


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


def load_cluster_file(path: Path) -> Cluster:
    """The cluster of a file; its machines are recorded, so that `start` and `down` find them."""
    from dora_cli.cluster import known_clusters
    from dora_config import load_cluster

    loaded = load_cluster(path)
    for problem in loaded.warnings:
        output.remark(str(problem))
    try:
        known_clusters.keep(loaded.cluster, path)
    except OSError as error:
        output.warn(f"cannot record the machines of {path} for `dora start`: {error}")
    return loaded.cluster


def fail_unless(ok: bool) -> None:
    if not ok:
        raise CommandFailed
