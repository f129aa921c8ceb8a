"""Which nodes are reloaded when files change; pure.

Editors replace a file by renaming another one over it, or truncate and write it: a node is reloaded
once its files have been unchanged for a moment and all exist.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SETTLE_SECONDS = 0.15
"""Time without a change until a node is reloaded."""
MISSING_SECONDS = 2.0
"""Time until a removed file is reported: most come back at once."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Run the new contents of these files in a node."""

    node: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ReportMissing:
    """A file of a node was removed; the node keeps running."""

    node: str
    file: Path


Command = Reload | ReportMissing


class ReloadState:
    """The files of all nodes, and what has changed in them."""

    def __init__(self) -> None:
        self._files: dict[str, frozenset[Path]] = {}
        self._digests: dict[Path, str | None] = {}
        self._changed: dict[str, dict[Path, float]] = {}
        """By node: changed files, and when."""
        self._reloading: set[str] = set()
        self._reported: set[tuple[str, Path]] = set()

    def set_files(self, node: str, digests: Mapping[Path, str | None]) -> None:
        """Set the files of a node; those that are new to it count as unchanged."""
        watched = self.files
        self._files[node] = frozenset(digests)
        for path, digest in digests.items():
            if path not in watched:
                self._digests[path] = digest

    def remove(self, node: str) -> None:
        """Ignore changes of the files of a node from now on."""
        self._files.pop(node, None)
        self._changed.pop(node, None)
        self._reported = {pair for pair in self._reported if pair[0] != node}

    def files_of(self, node: str) -> frozenset[Path]:
        return self._files.get(node, frozenset())

    @property
    def files(self) -> Collection[Path]:
        """All files that are watched."""
        return {path for files in self._files.values() for path in files}

    def note(self, digests: Mapping[Path, str | None], now: float) -> None:
        """Note the digests of contents (None: a missing file); ``now``: a monotonic clock."""
        for path, digest in digests.items():
            if self._digests.get(path) == digest:
                continue
            self._digests[path] = digest
            for node, files in self._files.items():
                if path in files:
                    self._changed.setdefault(node, {})[path] = now
                    self._reported.discard((node, path))

    def ended(self, node: str) -> None:
        """Note that a reload has ended, with success or not."""
        self._reloading.discard(node)

    def _missing(self, node: str) -> list[Path]:
        return [path for path in self._changed[node] if self._digests[path] is None]

    def _due_at(self, node: str) -> float | None:
        changed = self._changed[node]
        missing = [path for path in self._missing(node) if (node, path) not in self._reported]
        if missing:
            return max(changed[path] for path in missing) + MISSING_SECONDS
        if self._missing(node):
            return None  # reported: wait for the file
        return max(changed.values()) + SETTLE_SECONDS

    def due(self, now: float) -> Iterator[Command]:
        """Yield what is to be done at this time."""
        for node in list(self._changed):
            due = self._due_at(node)
            if node in self._reloading or due is None or now < due:
                continue
            missing = self._missing(node)
            if missing:
                for path in missing:
                    self._reported.add((node, path))
                    yield ReportMissing(node, path)
                continue
            files = tuple(sorted(self._changed.pop(node)))
            self._reloading.add(node)
            yield Reload(node, files)
