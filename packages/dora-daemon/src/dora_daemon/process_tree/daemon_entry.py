"""``daemon-*.json`` beside the runners' directories: which coordinator a daemon is connected to.

``stop-*.json`` are requests of commands on this machine while the coordinator is away.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dora_config.atomic_write import write_file
from dora_config.process_identity import boot_id, is_alive
from dora_daemon.process_tree.runtime_dir import living_runners, own_identity
from dora_node_api.backends.dynamic import runtime_roots
from dora_node_api.protocol.runner_index import IndexEntry

if TYPE_CHECKING:
    from dora_config.protocol.daemon import StopPart


@dataclass(frozen=True, slots=True)
class WaitingPart:
    """A part without processes until this machine or the coordinator starts it."""

    dataflow_id: str
    name: str | None
    nodes: int
    starts_at: float | None
    """Seconds of CLOCK_BOOTTIME; None: the coordinator starts it."""

    def text(self) -> str:
        """Return when it starts."""
        if self.starts_at is None:
            return "waits for the coordinator"
        return f"starts in {max(0.0, self.starts_at - boot_time()):.0f} s"


@dataclass(frozen=True, slots=True)
class DaemonEntry:
    """A daemon, and whether it has a connection to its coordinator."""

    instance: str
    machine_id: str | None
    pid: int
    start_time: int
    boot_id: str
    coordinator: str
    """``HOST:PORT``"""
    connected: bool
    since: float
    """Seconds of CLOCK_BOOTTIME at the last change of ``connected``."""
    waiting: tuple[WaitingPart, ...] = ()

    def seconds(self) -> float:
        """Return the seconds since the last change of ``connected``."""
        return max(0.0, boot_time() - self.since)

    def write(self, root: Path) -> None:
        """Replace its file. Raises OSError."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(_path(root, self.instance), json.dumps(asdict(self)), mode=0o600)


def boot_time() -> float:
    """Return seconds since the boot, which also count while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process_age() -> float:
    """Return for how long this process has run, in seconds."""
    _, started, _ = own_identity()
    return max(0.0, boot_time() - started / os.sysconf("SC_CLK_TCK"))


def remove(root: Path, instance: str) -> None:
    """Remove the file of a daemon that ends."""
    with suppress(OSError):
        _path(root, instance).unlink(missing_ok=True)


def daemons(root: Path) -> Iterator[DaemonEntry]:
    """Yield the daemons that run and keep their runners below ``root``."""
    for path in sorted(root.glob("daemon-*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            values = json.loads(path.read_text())
            waiting = tuple(WaitingPart(**one) for one in values.pop("waiting"))
            entry = DaemonEntry(**values, waiting=waiting)
            if entry.boot_id == boot_id() and is_alive(entry.pid, entry.start_time):
                yield entry


def connected_daemons() -> list[DaemonEntry]:
    """Return the daemons on this machine that are connected to their coordinator."""
    return [one for root in runtime_roots() for one in daemons(root) if one.connected]


def away_daemons() -> list[tuple[Path, DaemonEntry]]:
    """Return root and entry of the daemons on this machine that are not connected."""
    return [(root, one) for root in runtime_roots() for one in daemons(root) if not one.connected]


def request_stop(root: Path, instance: str, stop: StopPart) -> Path:
    """Request a stop of a daemon, which removes the file once it has stored the request.

    Raises OSError.
    """
    path = root / f"stop-{instance}-{stop.dataflow_id}.json"
    write_file(path, stop.model_dump_json(), mode=0o600)
    return path


def requested_stops(root: Path, instance: str) -> Iterator[tuple[Path, StopPart]]:
    """Yield the requests to a daemon."""
    # imported here: commands import this module and do not need the messages
    from dora_config.protocol.daemon import StopPart

    for path in root.glob(f"stop-{instance}-*.json"):
        try:
            yield path, StopPart.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            path.unlink(missing_ok=True)


def away_runs() -> list[tuple[Path, IndexEntry]]:
    """Return directory and index of the runners on this machine whose daemon is not connected."""
    found = []
    for root in runtime_roots():
        connected = {one.machine_id for one in daemons(root) if one.connected}
        found += [
            (directory, entry)
            for directory, entry in living_runners(root)
            if not entry.foreground and entry.machine_id not in connected
        ]
    return found


def _path(root: Path, instance: str) -> Path:
    return root / f"daemon-{instance}.json"
