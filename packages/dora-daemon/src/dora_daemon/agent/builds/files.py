"""Records of the builds on this machine, one file each."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from dora_config.access import private_dir, write_private
from dora_config.dataflow.resolved import NodeLocation
from dora_config.errors import DoraError
from dora_config.protocol.envelope import DataflowUuid, Message
from dora_daemon.agent.records import RecordFormat

MAX_KEPT: Final = 100
"""Records that are kept besides those that parts use."""


class NotBuilt(DoraError):
    """A node cannot run because its build is not on this machine."""


class BuildRecord(Message):
    """Working directories and interpreters of the nodes of one build."""

    format: RecordFormat = (1, 0)
    build_id: DataflowUuid
    places: dict[str, NodeLocation] = Field(default_factory=dict)


class BuildFiles:
    """A folder of records, protected by the lock of the daemon's state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_dir(directory)

    def save(self, record: BuildRecord, *, in_use: Collection[str] = ()) -> None:
        """Write a record; remove the oldest that are not ``in_use``."""
        write_private(self._path(record.build_id), record.model_dump_json().encode())
        kept = {record.build_id, *in_use}  # after a clock change the new one may be the oldest
        spare = [path for path in self._directory.glob("*.json") if path.stem not in kept]
        spare.sort(key=lambda path: path.stat().st_mtime)
        for path in spare[: max(0, len(spare) - MAX_KEPT + 1)]:
            path.unlink()

    def places(self, build_id: str) -> dict[str, NodeLocation] | None:
        """Return locations by node id, None for an unknown build."""
        try:
            text = self._path(build_id).read_bytes()
            return BuildRecord.model_validate_json(text).places
        except (FileNotFoundError, ValidationError):
            return None

    def _path(self, build_id: str) -> Path:
        return self._directory / f"{build_id}.json"
