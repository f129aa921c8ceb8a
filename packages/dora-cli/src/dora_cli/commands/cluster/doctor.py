"""`dora cluster doctor`."""

from __future__ import annotations

from dora_cli import options
from dora_cli.commands.cluster.arguments import ClusterFile, fail_unless, load_cluster_file

app = options.application()


@app.command()
def doctor(path: ClusterFile) -> None:
    """Check every machine and every pair of machines; say what to do about what is wrong."""
    from dora_cli.cluster.doctor import examine

    fail_unless(examine(load_cluster_file(path)))
