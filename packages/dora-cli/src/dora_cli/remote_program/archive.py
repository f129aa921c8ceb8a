"""Receives the archive of a version and unpacks it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cli.remote_program.paths import archive_folder, remove_unused
from dora_cli.remote_program.protocol import Problem
from dora_cli.remote_program.versions import (
    candidates,
    content_of,
    delete,
    in_work,
    own_python,
    sweep,
    works,
)

_NOT_COMPILED = r"/(tests|pip|pygments/(lexers|styles|formatters))/"
"""Folders of modules that dora rarely imports."""

ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished transfer or tree is removed."""
_SUFFIX = ".part"


def begin_transfer(folder: Path, name: str) -> tuple[Path, int]:
    """Create the file of this transfer, with the bytes that earlier ones have sent; return both.

    Transfers with the same ``name`` have the same content. The writer of an earlier one may still
    run, so its file is copied, and kept while it is open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = set(_open_files())
    begun = sorted(folder.glob(f"{name}.*{_SUFFIX}"), key=_size)
    handle, path = tempfile.mkstemp(_SUFFIX, f"{name}.", folder)
    with os.fdopen(handle, "wb") as file, suppress(FileNotFoundError):
        if begun:
            with begun[-1].open("rb") as before:
                shutil.copyfileobj(before, file)
    old = [one for one in folder.glob(f"*{_SUFFIX}") if _age(one) > ABANDONED]
    for one in (*begun, *old):
        if os.path.realpath(one) not in opened:
            one.unlink(missing_ok=True)
    return Path(path), _size(Path(path))


def _open_files() -> Iterator[str]:
    """Yield the paths of the files that processes of this user have open."""
    for handles in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            for handle in os.scandir(handles):
                with suppress(OSError):
                    yield os.readlink(handle.path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def partial(sha256: str) -> dict[str, Any]:
    """Create the file of this transfer for an archive, with what earlier transfers have sent."""
    path, size = begin_transfer(archive_folder(), sha256)
    return {"path": str(path), "size": size}


def discard(path: str) -> dict[str, Any]:
    """Remove an archive, and the folders that were created for it."""
    Path(path).unlink(missing_ok=True)
    remove_unused(Path(path).parent)
    return {}


def unpack(path: str, sha256: str, prefix: str, name: str) -> dict[str, Any]:
    """Unpack an archive as the version ``name``, completely or not at all; return its folder."""
    archive = Path(path)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        archive.unlink()
        raise Problem(f"the archive arrived broken (SHA-256 {found}, sent was {sha256}): try again")
    root = Path(prefix).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    sweep(root)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        with in_work(fresh):
            return {"tree": str(_unpack(archive, root, name, fresh))}
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpack(archive: Path, root: Path, name: str, fresh: Path) -> Path:
    """Unpack into the folder ``fresh``, which becomes the version ``name``."""
    fresh.chmod(0o755)
    with tarfile.open(archive) as packed:
        # its hash is right; the first releases of Python 3.11 have no filters
        filters: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        try:
            packed.extractall(fresh, **filters)
        except OSError as error:
            error.filename = error.filename or str(root)  # a full disk has no name otherwise
            raise
    _make_runnable(fresh)
    return _place(root, name, fresh)


def _make_runnable(tree: Path) -> None:
    """Add bin/python and pyvenv.cfg, which limits it to this tree.

    Also byte code if the tree is root's: other users cannot write it later.
    """
    python = own_python()
    python_here = tree / "bin" / "python"
    python_here.symlink_to(python)
    version = ".".join(map(str, sys.version_info[:3]))
    (tree / "pyvenv.cfg").write_text(
        f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    if os.geteuid() != 0:
        return
    subprocess.run(
        [python_here, "-I", "-m", "compileall", "-q", "-j", "0", "-x", _NOT_COMPILED, tree / "lib"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,  # a file that cannot be compiled is not one that dora imports
    )


def _place(root: Path, name: str, fresh: Path) -> Path:
    """Give a complete tree its name, or another one if that has other content."""
    content = content_of(fresh)
    for candidate in candidates(root, name, content):
        if candidate.exists():
            if content_of(candidate) != content:
                continue
            if works(candidate):
                return candidate
            delete(candidate)  # its Python was removed, so nothing runs from it
        _sync(fresh)  # complete on disk before it has its name
        fresh.rename(candidate)
        return candidate
    raise Problem(f"{root / name} exists and is not a version of dora; move it aside")


def _sync(folder: Path) -> None:
    """Write the file system of a folder to its disk; raises OSError if that fails.

    Other file systems, which may be slow or unreachable, are not written. Some minimal packages of
    Python lack ctypes.
    """
    try:
        from ctypes import CDLL, get_errno
    except ImportError:
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if CDLL(None, use_errno=True).syncfs(handle) != 0:
            raise OSError(get_errno(), os.strerror(get_errno()), str(folder.parent))
    finally:
        os.close(handle)
