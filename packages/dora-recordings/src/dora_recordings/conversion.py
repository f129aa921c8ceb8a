"""Steps that imports and exports of recordings share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dora_config.errors import DoraError
from dora_config.installation import extra_command


class CannotConvert(DoraError):
    """A file exists, a library is missing, or the source does not have what the format needs."""


def missing_extra(extra: str, error: ImportError) -> CannotConvert:
    """Return the error for a library that is not installed."""
    remedy = extra_command("dora-recordings", extra)
    return CannotConvert(f"this format needs {error.name}; install it with: {remedy}")


@dataclass(slots=True)
class Converted:
    """Messages of one output and type, or topic and type."""

    type: str
    topic: str = ""
    """Topic of ROS; empty for other formats."""
    output: str = ""
    messages: int = 0
    refused: int = 0
    """Messages that could not be converted and were left out."""
    reason: str = ""
    """Why the first message was refused."""

    def refuse(self, reason: object, count: int = 1) -> None:
        """Count messages that are left out."""
        self.refused += count
        self.reason = self.reason or str(reason)


@contextmanager
def unfinished(target: Path, what: str = "file") -> Iterator[Path]:
    """Yield a path that becomes ``target`` after the block, and is removed after an error.

    Creates the folders above it. Raises CannotConvert if ``target`` exists, or nothing was written.
    """
    if target.exists():
        raise CannotConvert(f"{target} exists; choose another {what} with -o")
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.new")
    _remove(path)
    try:
        yield path
        if not path.exists():
            raise CannotConvert(f"nothing was written to {target}")
        path.rename(target)
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
