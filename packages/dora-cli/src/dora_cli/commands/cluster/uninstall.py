"""`dora cluster uninstall`."""

from __future__ import annotations

from dora_cli import options
from dora_cli.commands.cluster.arguments import (
    ClusterFile,
    TakeOver,
    fail_unless,
    load_cluster_file,
)

app = options.application()


@app.command()
def uninstall(path: ClusterFile, take_over: TakeOver = False) -> None:
    """Stop and remove the services, and all that was installed with them, on every machine."""
    from dora_cli.bundle.install import Installer
    from dora_cli.cluster import install as work
    from dora_cli.cluster.guard import Errand

    errand = Errand("uninstall", path, take_over)
    fail_unless(work.uninstall(load_cluster_file(path), Installer(), errand))
