"""File by which commands on this machine find the daemon, and files with their requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dora_config.access import Endpoint
from dora_config.protocol.daemon import StopPart
from dora_daemon.agent.parts.table import PartTable
from dora_daemon.agent.records import PartRecord
from dora_daemon.process_tree import daemon_entry
from dora_daemon.process_tree.daemon_entry import DaemonEntry, WaitingPart
from dora_daemon.process_tree.runtime_dir import own_identity

logger = logging.getLogger("dora.daemon")


@dataclass(eq=False)
class LocalEntry:
    """Writes the state of the connection and the waiting parts to the file (`DaemonEntry`)."""

    _root: Path
    _instance: str
    _machine_id: str | None
    _offline_after: float
    """Seconds without the coordinator after which the machine starts its nodes alone."""
    _coordinator: Callable[[], Endpoint]
    _parts: PartTable
    _connected: bool = False
    _changed_at: float = field(default_factory=daemon_entry.boot_time)
    """Time of the last change of ``_connected``."""
    _noted: list[tuple[PartRecord, float]] = field(default_factory=list)
    """Waiting parts in the file."""

    def note_connection(self, *, connected: bool) -> None:
        """Write whether the daemon is connected to the coordinator."""
        self._connected, self._changed_at = connected, daemon_entry.boot_time()
        self._write()

    def update(self) -> None:
        """Write the waiting parts if they have changed."""
        if self._parts.waiting() != self._noted:
            self._write()

    def _write(self) -> None:
        self._noted = self._parts.waiting()
        pid, started, boot = own_identity()
        entry = DaemonEntry(
            instance=self._instance,
            machine_id=self._machine_id,
            pid=pid,
            start_time=started,
            boot_id=boot,
            coordinator=str(self._coordinator()),
            connected=self._connected,
            since=self._changed_at,
            waiting=tuple(self._waiting(record, due) for record, due in self._noted),
        )
        try:
            entry.write(self._root)
        except OSError as error:  # full disk
            logger.error("%s: cannot be written: %s", error.filename, error.strerror)

    def _waiting(self, record: PartRecord, due: float) -> WaitingPart:
        starts_at: float | None = self._changed_at + self._offline_after
        if record.spec.offline == "wait" or self._connected:
            starts_at = None
        elif due:
            starts_at = daemon_entry.boot_time() + due - time.time()
        nodes = len(record.spec.resolved.nodes)
        return WaitingPart(record.dataflow_id, record.spec.name, nodes, starts_at)

    def take_stops(self, post: Callable[[StopPart], None]) -> None:
        """Post the stops that commands have requested."""
        for path, stop in daemon_entry.requested_stops(self._root, self._instance):
            post(stop)
            path.unlink(missing_ok=True)  # the record contains it now

    def remove(self) -> None:
        """Remove the file when the daemon ends."""
        daemon_entry.remove(self._root, self._instance)
