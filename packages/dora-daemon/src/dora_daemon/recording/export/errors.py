"""Errors of exports."""

from __future__ import annotations

from dora_config.errors import DoraError


class CannotExport(DoraError):
    """A file exists, a library is missing, or the recording does not have what the format needs."""


def missing_extra(extra: str, error: ImportError) -> CannotExport:
    """Return the error for a library that is not installed."""
    return CannotExport(
        f'this format needs {error.name}; install it with: pip install "dora-daemon[{extra}]"'
    )
