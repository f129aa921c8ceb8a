"""``daemon-*.json`` beside the runners' directories: which coordinator a daemon is connected to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dora_config.atomic_write import write_file
from dora_config.process_identity import boot_id, is_alive
from dora_daemon.process_tree.runner_index import IndexEntry
from dora_daemon.process_tree.runtime_dir import living_runners, runtime_roots


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

    def seconds(self) -> float:
        """Return for how long it has been connected, or not."""
        return max(0.0, boot_time() - self.since)

    def write(self, root: Path) -> None:
        """Replace its file. Raises OSError."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(_path(root, self.instance), json.dumps(asdict(self)), mode=0o600)


def boot_time() -> float:
    """Return seconds since the boot, which also count while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def remove(root: Path, instance: str) -> None:
    """Remove the file of a daemon that ends."""
    with suppress(OSError):
        _path(root, instance).unlink(missing_ok=True)


def daemons(root: Path) -> Iterator[DaemonEntry]:
    """Yield the daemons that run and keep their runners below ``root``."""
    for path in sorted(root.glob("daemon-*.json")):
        with suppress(OSError, ValueError, TypeError):
            entry = DaemonEntry(**json.loads(path.read_text()))
            if entry.boot_id == boot_id() and is_alive(entry.pid, entry.start_time):
                yield entry


def away_daemons() -> list[DaemonEntry]:
    """Return the daemons of this machine that have no connection to their coordinator."""
    return [one for root in runtime_roots() for one in daemons(root) if not one.connected]


def away_runs() -> list[tuple[Path, IndexEntry]]:
    """Return directory and index of the runners on this machine whose daemon has no coordinator."""
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
