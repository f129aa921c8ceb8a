"""Lays out the files of nodes in a working directory; blocking.

Each file is replaced as a whole and only if it differs; files that an earlier layout of the same
dataflow put there and this one lacks are removed. What nodes or users made is left alone. The list
of what was laid out is written last, so that whatever was cut short is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dora_config.errors import DoraError
from dora_config.file_store import FileStore
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet

_LISTS: Final = Path(".dora") / "code"


class CodeConflict(DoraError):
    """Two nodes want different files at one place, or a file is in the way."""


def merged(sets: Iterable[CodeSet]) -> CodeSet:
    """All files of several nodes that run in one directory; raises CodeConflict."""
    files: dict[str, CodeFile] = {}
    links: dict[str, CodeLink] = {}
    for one in sets:
        for file in one.files:
            if files.setdefault(file.path, file) != file or file.path in links:
                raise CodeConflict(f"{file.path} is sent with two contents: start again")
        for link in one.links:
            if links.setdefault(link.path, link) != link or link.path in files:
                raise CodeConflict(f"{link.path} is sent with two contents: start again")
    return CodeSet(files=tuple(files.values()), links=tuple(links.values()))


def lay_out(code: CodeSet, directory: Path, store: FileStore, owner: str) -> int:
    """Make ``directory`` hold ``code``; how many files were written. ``owner`` names the dataflow
    file whose earlier layout is replaced. Raises OSError, CodeConflict.
    """
    directory.mkdir(parents=True, exist_ok=True)
    listed = directory / _LISTS / f"{owner}.json"
    before = _read(listed)
    known: dict[str, list[Any]] = {}
    written = 0
    wanted = set(code.paths)
    _remove(directory, [path for path in before if path not in wanted])
    for file in code.files:
        target = _inside(directory, file.path)
        if not _is_that_file(target, file, before.get(file.path)):
            _write(target, file, store)
            written += 1
        known[file.path] = _stamp(target, file)
    for link in code.links:
        target = _inside(directory, link.path)
        if not target.is_symlink() or os.readlink(target) != link.target:
            _clear(target)
            fresh = target.with_name(f".{target.name}.dora-new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(link.target)
            fresh.replace(target)
            written += 1
        known[link.path] = []
    if written or before.keys() != known.keys():
        listed.parent.mkdir(parents=True, exist_ok=True)
        fresh = listed.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(known))
            fresh.replace(listed)
        finally:
            fresh.unlink(missing_ok=True)
    return written


def growth(code: CodeSet, directory: Path) -> int:
    """Bytes that laying out ``code`` writes at most; a file of the right size counts as right."""
    total = 0
    for file in code.files:
        with suppress(OSError):
            if (directory / file.path).stat().st_size == file.size:
                continue
        total += file.size
    return total


def _read(listed: Path) -> Mapping[str, list[Any]]:
    try:
        found = json.loads(listed.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _inside(directory: Path, path: str) -> Path:
    """The place of a path, whose folders exist and are folders, not links to elsewhere."""
    target = directory / path
    folder = directory
    for part in Path(path).parts[:-1]:
        folder = folder / part
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()
        folder.mkdir(exist_ok=True)
    return target


def _stamp(path: Path, file: CodeFile) -> list[Any]:
    """Changes when anybody writes to the file."""
    status = path.lstat()
    return [file.sha256, status.st_mtime_ns, status.st_ino, status.st_size]


def _is_that_file(path: Path, file: CodeFile, stamp: list[Any] | None) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if bool(path.stat().st_mode & 0o100) != file.executable:
        return False
    if stamp is not None and stamp == _stamp(path, file):
        return True
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _write(target: Path, file: CodeFile, store: FileStore) -> None:
    _clear(target)
    fresh = target.with_name(f".{target.name}.dora-new")
    try:
        shutil.copyfile(store.path(file.sha256), fresh)
        fresh.chmod(0o755 if file.executable else 0o644)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _clear(target: Path) -> None:
    """A folder gives way to a file only if it is empty."""
    if target.is_dir() and not target.is_symlink():
        try:
            target.rmdir()
        except OSError:
            raise CodeConflict(
                f"{target} is a folder with files in it, and a file of that name is sent: move it"
            ) from None


def _remove(directory: Path, paths: Iterable[str]) -> None:
    for path in paths:
        target = directory / path
        if ".." in Path(path).parts:
            continue
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            target.unlink()
        for parent in Path(path).parents:
            if parent == Path():
                break
            with suppress(OSError):  # not empty: something of a node's is in it
                (directory / parent).rmdir()
