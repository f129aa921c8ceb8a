"""What builds have made on this machine, by build id: one file each, replaced as a whole."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import Field, ValidationError

from dora_config.access import private_dir
from dora_config.errors import DoraError
from dora_config.protocol.dataflow import DataflowUuid
from dora_config.protocol.envelope import Message
from dora_config.protocol.runner import NodeLocation
from dora_daemon.agent.part_files import replace_file

KEPT = 100
"""Builds that are remembered beside those that parts use."""


class NotBuilt(DoraError):
    """A node cannot run here as it is: its build is not on this machine."""


class BuildRecord(Message):
    """Where the nodes of one build run, and with which interpreter."""

    build_id: DataflowUuid
    places: dict[str, NodeLocation] = Field(default_factory=dict)


class BuildFiles:
    """A folder of records; it belongs to whoever holds the lock of the daemon's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_dir(directory)

    def save(self, record: BuildRecord, *, in_use: Collection[str] = ()) -> None:
        """Remember a build; the oldest that is not ``in_use`` may be forgotten for it."""
        replace_file(self._path(record.build_id), record.model_dump_json())
        kept = {record.build_id, *in_use}  # the new one is the oldest by a clock that was set back
        spare = [path for path in self._directory.glob("*.json") if path.stem not in kept]
        spare.sort(key=lambda path: path.stat().st_mtime)
        for path in spare[: max(0, len(spare) - KEPT + 1)]:
            path.unlink()

    def places(self, build_id: str) -> dict[str, NodeLocation] | None:
        """By node id; None for a build that is not (any more) known here."""
        try:
            text = self._path(build_id).read_bytes()
            return BuildRecord.model_validate_json(text).places
        except (FileNotFoundError, ValidationError):
            return None

    def _path(self, build_id: str) -> Path:
        return self._directory / f"{build_id}.json"
