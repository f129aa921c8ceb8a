"""Error of runtime directories."""

from __future__ import annotations

from dora_config import DoraError


class RuntimeDirError(DoraError):
    """A runtime directory cannot be created, taken over or removed."""
