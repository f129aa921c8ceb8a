"""`dora cluster up`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import options
from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    TakeOver,
    WheelHouse,
    fail_unless,
    load_cluster_file,
)

app = options.application()


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
    from dora_cli.cluster.guard import Errand
    from dora_cli.cluster.up import bring_up

    errand = Errand("up", path, take_over)
    fail_unless(
        bring_up(load_cluster_file(path), Installer(offline), errand, recreate_store=recreate_store)
    )
