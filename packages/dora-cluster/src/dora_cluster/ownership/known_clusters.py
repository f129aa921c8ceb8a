"""Records of the clusters whose file this account has used, for `start`, `status` and `down`.

They are read without the models where possible: `dora cluster status` is as quick as `list`.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_cli import output
from dora_config.access import Endpoint, private_dir, state_dir
from dora_config.control_plane import is_local

if TYPE_CHECKING:
    from dora_config.cluster.models import Cluster, Machine
    from dora_config.protocol.snapshot import DaemonSummary

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _folder() -> Path:
    return state_dir() / "clusters"


def _path(cluster: Cluster) -> Path:
    address = cluster.coordinator.addr.replace(":", "_")
    return _folder() / f"{address}-{cluster.coordinator.port}.json"


def _read(path: Path) -> dict[str, Any]:
    """Return the cluster file's path, the cluster (None once it was brought down) and the machines
    that its file contained before.
    """
    empty: dict[str, Any] = {"file": "cluster.yml", "cluster": None, "former": []}
    try:
        return {**empty, **json.loads(path.read_bytes())}
    except (OSError, ValueError, TypeError):
        return empty


def _update(known: Cluster, **changes: Any) -> None:
    path = _path(known)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")  # two commands may run at once
    fresh.write_text(json.dumps(_read(path) | changes))
    fresh.replace(path)


def _key(machine: Mapping[str, Any]) -> tuple[Any, ...]:
    return machine["id"], machine["host"], machine["user"], machine["port"]


def keep(cluster: Cluster, file: Path) -> None:
    """Record the machines; those that the file no longer contains become former machines."""
    private_dir(private_dir(state_dir()) / "clusters")
    before, now = _read(_path(cluster)), cluster.model_dump(mode="json")
    machines = [*before["former"], *(before["cluster"] or {"machines": ()})["machines"]]
    left = {_key(one): one for one in machines}
    for one in now["machines"]:
        left.pop(_key(one), None)
    _update(cluster, cluster=now, file=str(file.absolute()), former=list(left.values()))


def with_former_places(cluster: Cluster) -> Cluster:
    """Return a cluster with the addresses at which its coordinator was before: daemons' command
    lines may still name them after `dora cluster promote --back`.
    """
    before = _read(_path(cluster))["cluster"] or {"coordinator": {"former": ()}}
    former = tuple(before["coordinator"]["former"])
    if not former:
        return cluster
    place = cluster.coordinator.model_copy(update={"former": former})
    return cluster.model_copy(update={"coordinator": place})


def former_machines(cluster: Cluster) -> tuple[Machine, ...]:
    """Return machines that were in the file and may still run a daemon."""
    from dora_config.cluster.models import Machine

    former = _read(_path(cluster))["former"]
    return tuple(Machine.model_validate_json(json.dumps(one)) for one in former)


def file_of(cluster: Cluster) -> str:
    """Return the path of the cluster file that was used last."""
    return str(_read(_path(cluster))["file"])


def drop_former(cluster: Cluster, machine: Machine) -> None:
    """Remove a former machine, which has no daemon any more."""
    left = [one for one in former_machines(cluster) if one != machine]
    _update(cluster, former=[one.model_dump(mode="json") for one in left])


def forget(cluster: Cluster) -> None:
    """Remove a cluster that was brought down or uninstalled; its former machines stay."""
    if _path(cluster).exists():
        _update(cluster, cluster=None)


def find(address: Endpoint) -> Cluster | None:
    """Return the cluster of the coordinator at ``address``; None if it is not known."""
    from dora_config.cluster.models import Cluster

    if (path := _find(address)) is None:
        return None
    return Cluster.model_validate_json(json.dumps(_read(path)["cluster"]))


def _find(address: Endpoint) -> Path | None:
    """Return the record of the cluster of the coordinator at ``address``; None without one.

    A loopback address matches any address of this machine (of several clusters with their
    coordinator here, the one whose file was used last), or it is a tunnel to another machine.
    """
    found: dict[Path, str] = {}
    for path in sorted(_folder().glob("*.json")):
        place = (_read(path)["cluster"] or {"coordinator": {}})["coordinator"]
        addr = str(place.get("addr"))
        if address.host in (addr, *_LOOPBACK) and place.get("port") == address.port:
            found[path] = addr
    if here := [path for path, addr in found.items() if is_local(addr)]:
        return max(here, key=lambda path: path.stat().st_mtime)
    return next(iter(found)) if len(found) == 1 else None


def warn_of_unknown(address: Endpoint, daemons: Iterable[DaemonSummary]) -> None:
    """List connected daemons that the file of their cluster lacks."""
    if (path := _find(address)) is not None:
        record = _read(path)
        known = {machine["id"] for machine in record["cluster"]["machines"]}
        warn_of_leftovers(known, record["file"], {}, daemons)


def warn_of_leftovers(
    known: set[str], file: str, seen: dict[str, str], daemons: Iterable[DaemonSummary]
) -> None:
    """List daemons of machines that are not ``known``: those ``seen`` and connected ones."""
    for one in daemons:
        if one.connected and one.machine_id is not None and one.machine_id not in known:
            seen.setdefault(one.machine_id, f"at {one.address or 'an unknown address'}")
    for name, place in sorted(seen.items()):
        output.warn(
            f'daemon "{name}" runs {place} and is not in {file}; remove it: '
            f"dora cluster remove {shlex.quote(file)} {name}"
        )
