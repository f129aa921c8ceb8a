"""Finds versions of pyarrow and NumPy that do not work together, which pip does not report.

They are read from the names of folders in site-packages; nothing is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

FIRST_FOR_NUMPY_2: Final = 26
"""First major version of pyarrow that refuses NumPy 1."""
CURE: Final = f"pyarrow>=16.1,<{FIRST_FOR_NUMPY_2}"
"""Requirement that works with NumPy 1."""


def find_conflict(sites: Iterable[Path]) -> str | None:
    """Return why the first packages found in the folders of an import path conflict, or None."""
    folders = list(sites)
    numpy, arrow = _version(folders, "numpy"), _version(folders, "pyarrow")
    if numpy is None or arrow is None or _major(numpy) >= 2 or _major(arrow) < FIRST_FOR_NUMPY_2:
        return None
    return f"pyarrow {arrow} does not work with NumPy {numpy}"


def _version(folders: Iterable[Path], name: str) -> str | None:
    found = next((path for one in folders for path in one.glob(f"{name}-*.dist-info")), None)
    return None if found is None else found.name.removesuffix(".dist-info").partition("-")[2]


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else FIRST_FOR_NUMPY_2
