"""Runners with a runtime directory, including those that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dora_config.process_identity import boot_id, is_alive
from dora_daemon.process_tree.reaper import RESULT
from dora_node_api.protocol.runner_index import IndexEntry, read_entry


@dataclass(frozen=True, slots=True)
class FoundRunner:
    """A runtime directory with an index. ``alive``: its runner runs."""

    path: Path
    entry: IndexEntry
    alive: bool
    has_result: bool


def list_runners(root: Path) -> list[FoundRunner]:
    """Return the runners with an index below ``root``."""
    found = []
    for path in sorted(root.glob("[0-9]*"), key=lambda path: int(path.name)):
        if (entry := read_entry(path)) is not None:
            same_boot = entry.boot_id == boot_id()
            alive = same_boot and is_alive(entry.pid, entry.start_time)
            found.append(FoundRunner(path, entry, alive, (path / RESULT).exists()))
    return found
