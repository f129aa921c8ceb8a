"""Records of known clusters without their models: `dora cluster status` is as quick as `list`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_cli import output
from dora_config.access import Endpoint, state_dir
from dora_config.control_plane import is_local

if TYPE_CHECKING:
    from dora_config.protocol.snapshot import DaemonSummary

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def folder() -> Path:
    return state_dir() / "clusters"


def find(address: Endpoint) -> Path | None:
    """Return the record of the cluster of the coordinator at ``address``; None without one.

    A loopback address matches any address of this machine (of several clusters with their
    coordinator here, the one whose file was used last), or it is a tunnel to another machine.
    """
    found: list[tuple[str, Path]] = []
    for path in sorted(folder().glob("*.json")) if folder().is_dir() else ():
        place = (_cluster(path) or {}).get("coordinator") or {}
        addr = str(place.get("addr"))
        if address.host in (addr, *_LOOPBACK) and place.get("port") == address.port:
            found.append((addr, path))
    here = [path for addr, path in found if is_local(addr)]
    if here:
        return max(here, key=lambda path: path.stat().st_mtime)
    return found[0][1] if len(found) == 1 else None


def warn_of_unknown(address: Endpoint, daemons: Iterable[DaemonSummary]) -> None:
    """List connected daemons that the file of their cluster lacks."""
    if (path := find(address)) is None:
        return
    known = {str(machine.get("id")) for machine in (_cluster(path) or {}).get("machines", ())}
    warn_of_leftovers(known, str(_record(path).get("file", "cluster.yml")), {}, daemons)


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


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _cluster(path: Path) -> dict[str, Any] | None:
    """Return the cluster in a record; None once it was brought down."""
    cluster = _record(path).get("cluster")
    return cluster if isinstance(cluster, dict) else None
