"""Writes sent files of nodes into a working directory; blocking.

Each file is replaced atomically, and only if it differs. Files of an earlier checkout of the same
dataflow that are not in this one are removed; files of nodes and users are kept. The index of the
checkout is written last, so that an interrupted one is repeated:

    .dora/code/OWNER.json   {PATH: [SHA-256, mtime_ns, inode, size]}; of a link: {PATH: []}
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

from pydantic import ValidationError

from dora_config.atomic_write import write_file
from dora_config.errors import DoraError
from dora_config.file_store import FileStore
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet

_INDEXES: Final = Path(".dora") / "code"


class CodeConflict(DoraError):
    """The files of two nodes conflict, or a folder occupies the path of a file."""


def merged(sets: Iterable[CodeSet]) -> CodeSet:
    """Return all files of several nodes that run in one directory. Raises CodeConflict.

    Of two entries with one path, the later counts: it is the code of a replacement.
    """
    entries: dict[str, CodeFile | CodeLink] = {}
    for one in sets:
        entries |= {file.path: file for file in one.files}
        entries |= {link.path: link for link in one.links}
    files = tuple(entry for entry in entries.values() if isinstance(entry, CodeFile))
    links = tuple(entry for entry in entries.values() if isinstance(entry, CodeLink))
    try:
        return CodeSet(files=files, links=links)
    except ValidationError as error:
        text = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise CodeConflict(f"the nodes' files do not fit together: {text}") from error


def check_out(
    code: CodeSet, directory: Path, store: FileStore, owner: str, running: Iterable[str] = ()
) -> None:
    """Write ``code`` to ``directory``, replacing the earlier checkout of the dataflow ``owner``.

    Files of the other dataflows ``running`` stay. Raises OSError and CodeConflict.
    """
    directory.mkdir(parents=True, exist_ok=True)
    index = directory / _INDEXES / f"{owner}.json"
    before = _read(index)
    in_use: set[str] = set()
    for other in set(running) - {owner}:
        files = _read(directory / _INDEXES / f"{other}.json")
        _require_equal(code, files, directory)
        in_use |= files.keys()
    known: dict[str, list[Any]] = {}
    changed = False
    _remove(directory, before.keys() - set(code.paths) - in_use)
    for file in code.files:
        target = _inside(directory, file.path)
        if not _is_that_file(target, file, before.get(file.path)):
            _write(target, file, store)
            changed = True
        known[file.path] = _stamp(target, file)
    for link in code.links:
        target = _inside(directory, link.path)
        if not target.is_symlink() or os.readlink(target) != link.target:
            _clear(target)
            fresh = target.with_name(f".{target.name}.dora-new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(link.target)
            fresh.replace(target)
            changed = True
        known[link.path] = []
    if changed or before.keys() != known.keys():
        index.parent.mkdir(parents=True, exist_ok=True)
        write_file(index, json.dumps(known))


def _require_equal(code: CodeSet, files: Mapping[str, list[Any]], directory: Path) -> None:
    """Raise CodeConflict if the code would replace files of a running dataflow."""
    sent = {file.path: file.sha256 for file in code.files}
    links = {link.path: link.target for link in code.links}
    for path, stamp in files.items():
        if stamp:
            differs = path in links or sent.get(path, stamp[0]) != stamp[0]
        else:
            differs = path in sent or links.get(path) not in (None, _target(directory / path))
        if differs:
            raise CodeConflict(
                f"{path} belongs to another dataflow that runs in this folder, with other content; "
                "stop that one, or choose another `deploy.working_dir`"
            )


def _target(link: Path) -> str | None:
    return os.readlink(link) if link.is_symlink() else None


def growth(code: CodeSet, directory: Path) -> int:
    """Return about how many bytes a checkout writes: files with the right size count as equal."""
    total = 0
    for file in code.files:
        with suppress(OSError):
            if (directory / file.path).stat().st_size == file.size:
                continue
        total += file.size
    return total


def _read(index: Path) -> Mapping[str, list[Any]]:
    try:
        found = json.loads(index.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _inside(directory: Path, path: str) -> Path:
    """Return the path of a file, after replacing parents that are links or files by folders."""
    target = directory / path
    folder = directory
    for part in Path(path).parts[:-1]:
        folder = folder / part
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()
        folder.mkdir(exist_ok=True)
    return target


def _stamp(path: Path, file: CodeFile) -> list[Any]:
    """Return a stamp of the file, which changes when the file is written."""
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
    """Remove an empty folder at the path of a file."""
    if target.is_dir() and not target.is_symlink():
        try:
            target.rmdir()
        except OSError:
            raise CodeConflict(
                f"{target} is a folder that is not empty, but a file with that path is sent; move "
                "the folder"
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
            with suppress(OSError):  # not empty: contains files of a node
                (directory / parent).rmdir()
