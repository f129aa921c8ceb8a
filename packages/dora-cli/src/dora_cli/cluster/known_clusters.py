"""Clusters that were brought up from this account, so that `down` finds their machines."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from dora_config.access import Endpoint, private_dir, state_dir
from dora_config.cluster.models import Cluster

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _folder() -> Path:
    return state_dir() / "clusters"


def _path(cluster: Cluster) -> Path:
    address = cluster.coordinator.addr.replace(":", "_")
    return _folder() / f"{address}-{cluster.coordinator.port}.json"


def keep(cluster: Cluster) -> None:
    """Remember the machines."""
    private_dir(private_dir(state_dir()) / "clusters")
    path = _path(cluster)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(cluster.model_dump_json())
    fresh.replace(path)


def forget(cluster: Cluster) -> None:
    """It has been brought down."""
    _path(cluster).unlink(missing_ok=True)


def find(address: Endpoint) -> Cluster | None:
    """The cluster of the coordinator at ``address``; loopback is any that was begun here."""
    found = []
    folder = _folder()
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            cluster = Cluster.model_validate_json(path.read_bytes())
        except (ValidationError, OSError):
            continue
        same_host = address.host in (cluster.coordinator.addr, *_LOOPBACK)
        if same_host and cluster.coordinator.port == address.port:
            found.append(cluster)
    return found[0] if len(found) == 1 else None
