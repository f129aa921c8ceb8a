"""`dora cluster exec`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import options
from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    SomeMachines,
    fail_unless,
    load_cluster_file,
    select_machines,
)

SETTINGS = {"context_settings": {"ignore_unknown_options": True}}


def main(
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
    from dora_cli.cluster.operations import fanout

    loaded = load_cluster_file(path)
    machines = select_machines(loaded, machine)
    fail_unless(fanout.execute(loaded, machines, command, timeout))
