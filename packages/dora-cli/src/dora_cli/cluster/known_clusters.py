"""Clusters whose file this account has used, so that `start` and `down` find their machines."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from dora_cli.cluster import local_coordinator as coordinator_here
from dora_config.access import Endpoint, private_dir, state_dir
from dora_config.cluster.models import Cluster

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _folder() -> Path:
    return state_dir() / "clusters"


def _path(cluster: Cluster) -> Path:
    address = cluster.coordinator.addr.replace(":", "_")
    return _folder() / f"{address}-{cluster.coordinator.port}.json"


def keep(cluster: Cluster) -> None:
    """Record the machines; those of an earlier file with the same coordinator are replaced."""
    private_dir(private_dir(state_dir()) / "clusters")
    path = _path(cluster)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(cluster.model_dump_json())
    fresh.replace(path)


def forget(cluster: Cluster) -> None:
    """It has been brought down or uninstalled."""
    _path(cluster).unlink(missing_ok=True)


def find(address: Endpoint) -> Cluster | None:
    """The cluster of the coordinator at ``address``; None when it is not known.

    A loopback address stands for any address of this machine (of clusters with their coordinator
    here, the one whose file was used last is meant), or is the end of a tunnel to another one.
    """
    found: list[tuple[float, Cluster]] = []
    folder = _folder()
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            cluster = Cluster.model_validate_json(path.read_bytes())
            used = path.stat().st_mtime
        except (ValidationError, OSError):
            continue
        same_host = address.host in (cluster.coordinator.addr, *_LOOPBACK)
        if same_host and cluster.coordinator.port == address.port:
            found.append((used, cluster))
    here = [pair for pair in found if coordinator_here.is_own(pair[1].coordinator.addr)]
    if here:
        return max(here, key=lambda pair: pair[0])[1]
    return found[0][1] if len(found) == 1 else None
