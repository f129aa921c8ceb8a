"""Versions of Arrow and NumPy that do not work together: pip installs them without a word.

They are read from the names of folders in site-packages: nothing is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FIRST_FOR_NUMPY_2: Final = 26
"""Major version of pyarrow; from this one on it refuses NumPy 1."""
CURE: Final = f"pyarrow>=16.1,<{FIRST_FOR_NUMPY_2}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Versions in one environment; ``str()`` gives the reason."""

    numpy: str
    pyarrow: str

    def __str__(self) -> str:
        return f"pyarrow {self.pyarrow} does not work with NumPy {self.numpy}"


def find_conflict(sites: Iterable[Path]) -> Conflict | None:
    """Return a conflict in folders of an import path, the first of which counts."""
    folders = list(sites)
    return conflict_of({name: _first(folders, name) for name in ("numpy", "pyarrow")})


def conflict_of(versions: Mapping[str, str | None]) -> Conflict | None:
    """Return the conflict between versions; None also if one is not installed or unknown."""
    numpy, arrow = versions.get("numpy"), versions.get("pyarrow")
    if numpy is None or arrow is None or _major(numpy) >= 2 or _major(arrow) < FIRST_FOR_NUMPY_2:
        return None
    return Conflict(numpy, arrow)


def version_in(site: Path, name: str) -> str | None:
    """Return the version of a package in one folder."""
    found = next(site.glob(f"{name}-*.dist-info"), None)
    return None if found is None else found.name.removesuffix(".dist-info").partition("-")[2]


def _first(folders: Iterable[Path], name: str) -> str | None:
    return next(filter(None, (version_in(folder, name) for folder in folders)), None)


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else FIRST_FOR_NUMPY_2
