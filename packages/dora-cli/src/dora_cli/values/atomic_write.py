"""Atomic write of a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def write_file(path: Path, content: str | bytes) -> None:
    """Create or replace a file atomically; an OSError names ``path``."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
