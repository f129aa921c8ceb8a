"""Decides when a recording ends and when its next file begins; pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dora_config.protocol.recordings.recorder import RecordingRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds; None: no limit."""

    max_bytes: int | None
    max_seconds: float | None
    split_bytes: int | None
    split_seconds: float | None

    @classmethod
    def of(cls, request: RecordingRequest) -> Limits:
        return cls(
            request.max_bytes, request.max_seconds, request.split_bytes, request.split_seconds
        )

    @property
    def splits(self) -> bool:
        return self.split_bytes is not None or self.split_seconds is not None

    def ended(self, total_bytes: int, seconds: float) -> bool:
        """Return whether the recording, of this size and age, ends."""
        return _reached(self.max_bytes, total_bytes) or _reached(self.max_seconds, seconds)

    def file_ended(self, file_bytes: int, seconds: float) -> bool:
        """Return whether the next file begins."""
        return _reached(self.split_bytes, file_bytes) or _reached(self.split_seconds, seconds)

    def file_name(self, path: Path, number: int) -> Path:
        """Return the path of a file, numbered from 0 if the recording is split."""
        return path.with_name(f"{path.stem}_{number}{path.suffix}") if self.splits else path


def _reached(limit: float | None, value: float) -> bool:
    return limit is not None and value >= limit
