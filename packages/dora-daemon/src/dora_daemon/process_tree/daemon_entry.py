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


def _path(root: Path, instance: str) -> Path:
    return root / f"daemon-{instance}.json"
