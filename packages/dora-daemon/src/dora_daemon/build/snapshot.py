"""State of files and installed packages that a build can depend on.

Files are compared by size, inode, time of change and time of modification, without reading them.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

MAX_FILES = 20_000
"""Files of one build; a build that could read more is never skipped."""

State = Mapping[str, str]
"""Metadata by path."""

_LEFT_OUT = frozenset({".git", "__pycache__", ".dora", ".mypy_cache", ".pytest_cache"})
_GIT_FILES = ("HEAD", "logs/HEAD", "packed-refs")
"""At least one of them changes with every commit and checkout."""
_COMPARED = (".dist-info", ".egg-info", ".pth", ".egg-link")
"""Entries of site-packages that change with what is installed."""


def file_state(roots: Iterable[Path], left_out: Iterable[Path] = ()) -> State | None:
    """Return the state of every file below the roots, except in `left_out`; None if too many."""
    state: dict[str, str] = {}
    skipped = {str(path) for path in left_out}
    for root in roots:
        for path in _files(root, skipped):
            state[path] = _mark(path)
            if len(state) > MAX_FILES:
                return None
    return state


def _files(root: Path, skipped: set[str]) -> Iterator[str]:
    if not root.is_dir():
        yield str(root)
        return
    seen: set[tuple[int, int]] = set()
    for directory, names, files in os.walk(root, followlinks=True):
        found = Path(directory).stat()
        if (found.st_dev, found.st_ino) in seen or "pyvenv.cfg" in files:
            names.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        names[:] = [
            name
            for name in sorted(names)
            if name not in _LEFT_OUT and f"{directory}/{name}" not in skipped
        ]
        yield from (f"{directory}/{name}" for name in files)


def git_files(directory: Path) -> list[Path]:
    """Return files that change with each commit of the repository of a folder."""
    for folder in (directory, *directory.parents):
        if (folder / ".git").is_dir():
            return [folder / ".git" / name for name in _GIT_FILES]
        if (folder / ".git").is_file():  # a worktree, whose files are elsewhere
            return [folder / ".git", *folder.glob(".git")]
    return []


def site_directories(python: Path | None) -> list[Path]:
    """Return the folders of an interpreter's packages (None: of the one that runs dora)."""
    if python is not None:
        return sorted(python.parent.parent.glob("lib/python*/site-packages"))
    return sorted({Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")})


def environment_state(python: Path | None) -> State:
    """Return the state of an interpreter's packages and of the programs beside it."""
    state: dict[str, str] = {}
    for site in site_directories(python):
        for name in _names(site):
            if name != "__pycache__":
                state[f"{site}/{name}"] = _entry_mark(site / name)
    programs = Path(sysconfig.get_path("scripts")) if python is None else python.parent
    state |= {f"{programs}/{name}": "" for name in _names(programs) if name != "__pycache__"}
    return state


def _entry_mark(path: Path) -> str:
    if path.suffix not in _COMPARED:
        return ""  # a package's folder changes when its modules are compiled
    return (
        f"{_mark(str(path))} {_mark(str(path / 'RECORD'))}" if path.is_dir() else _mark(str(path))
    )


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _mark(path: str) -> str:
    try:
        found = Path(path).stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


def difference(before: State, after: State) -> set[str]:
    """Return the paths that differ, or are in one of the two only."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
