"""`dora cluster rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import options
from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    KeepGoing,
    SomeMachines,
    TakeOver,
    fail_unless,
    load_cluster_file,
)

app = options.application()


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
    from dora_cli.cluster import fanout
    from dora_cli.cluster import rollback as work
    from dora_cli.cluster.guard import Errand, guarded

    loaded = load_cluster_file(path)
    machines = fanout.chosen(loaded, machine or ())
    with guarded(loaded, Errand("rollback", path, take_over), machines):
        fail_unless(work.rollback(loaded, Installer(), machines, to=to, keep_going=keep_going))
