"""Errors of recordings."""

from __future__ import annotations

from dora_config import DoraError


class RecordingError(DoraError):
    """A recording cannot be started, found or fetched."""
