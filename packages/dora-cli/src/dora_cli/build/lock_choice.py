"""The lock options of `run` and `build`: which commits git sources use, and recording them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dora_cli import output

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow


@dataclass(frozen=True, slots=True)
class LockChoice:
    """Values of the lock options; `path` None: beside the dataflow file."""

    locked: bool = False
    write: bool = False
    path: Path | None = None

    @classmethod
    def from_options(cls, *, locked: bool, write: bool, path: Path | None) -> LockChoice:
        """Check the options of a command; raises BadParameter for a contradiction."""
        if locked and write:
            raise typer.BadParameter("--locked and --write-lockfile cannot be used together")
        if path is not None and not (locked or write):
            output.warn("--lockfile has no effect without --locked or --write-lockfile")
        return cls(locked, write, path)

    def commits(self, loaded: LoadedDataflow) -> dict[str, str] | None:
        """Return the locked commit of each node; None without `--locked`; raises LockFileError."""
        from dora_daemon.build.lock_file import check_lock, read_lock_file

        if not self.locked or all(node.git is None for node in loaded.resolved.nodes):
            return None
        path = self._file(loaded)
        return check_lock(path, read_lock_file(path), loaded.resolved)

    def record(self, loaded: LoadedDataflow, commits: Mapping[str, str]) -> None:
        """With `--write-lockfile`: write the commits of git sources; raises LockFileError."""
        from dora_daemon.build.lock_file import lock_source, write_lock_file

        if not self.write:
            return
        sources = {
            node.id: lock_source(node.git, commits[node.id])
            for node in loaded.resolved.nodes
            if node.git is not None and node.id in commits
        }
        path = self._file(loaded)
        write_lock_file(path, sources)
        output.remark(f"wrote {path} ({output.counted(len(sources), 'git source')})")

    def _file(self, loaded: LoadedDataflow) -> Path:
        from dora_daemon.build.lock_file import lock_file_path

        return self.path or lock_file_path(loaded.path)
