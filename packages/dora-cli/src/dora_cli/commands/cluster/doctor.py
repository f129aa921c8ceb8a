"""`dora cluster doctor`."""

from __future__ import annotations

from dora_cli.commands.cluster.arguments import ClusterFile, fail_unless, load_cluster_file


def main(path: ClusterFile) -> None:
    """Check the coordinator, the machines and their links; print problems and remedies."""
    from dora_cli.cluster.operations.doctor import diagnose

    fail_unless(diagnose(load_cluster_file(path)))
