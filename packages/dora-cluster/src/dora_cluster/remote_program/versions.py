"""Receives, unpacks and switches versions. Trees lie below one folder, the prefix.

    PREFIX/<version>-py<X.Y>[-<hash>]   a tree; complete once it has this name
    PREFIX/current, PREFIX/previous     links to the tree in use and the one before; both lead to
                                        the same tree after a rollback
    PREFIX/.new-*                       a tree that the process that locked it unpacks or removes


The `dora` that users and services call is a link to ``PREFIX/current/bin/dora``. Switching replaces
one link, so that a complete version exists at any moment.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dora_cluster.remote_program.paths import archive_folder, command_line, existing, remove_unused
from dora_cluster.remote_program.protocol import RemoteProblem

_NOT_COMPILED = r"/(tests|pip|pygments/(lexers|styles|formatters))/"
"""Folders of rarely imported modules, which are not compiled to byte code."""

ABANDONED_SECONDS = 24 * 3600.0
"""Seconds after which an unfinished transfer or tree is removed."""
_SUFFIX = ".part"


_TARGET = "/current/bin/dora"
"""Target of the link that users and services use, below the prefix."""


def platform_facts() -> dict[str, Any]:
    """Return the facts that ``dora_cluster.bundle.dependencies`` reads."""
    libc, version = _libc()
    return {
        "system": platform.system(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": libc,
        "libc_version": version,
        "python": list(sys.version_info[:3]),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }


def _libc() -> tuple[str, str]:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        text = ""
    if text.startswith("glibc "):
        return "glibc", text.split()[1]
    for loader in sorted(Path("/lib").glob("ld-musl-*.so.1")):
        printed = subprocess.run([loader], capture_output=True, text=True, check=False).stderr
        for line in printed.splitlines():
            if line.startswith("Version "):
                return "musl", line.split()[1]
    return platform.libc_ver()


def own_python() -> Path:
    """Return the interpreter itself, not the link of a virtual environment to it."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def probe(prefix: str, link: str) -> dict[str, Any]:
    """Return the platform, the installed versions and the free space."""
    root, archives = Path(prefix).expanduser(), archive_folder()
    return {
        **platform_facts(),
        "free": shutil.disk_usage(existing(root)).free,
        "device": existing(root).stat().st_dev,
        "archives": str(archives),
        "archives_free": shutil.disk_usage(existing(archives)).free,
        "archives_device": existing(archives).stat().st_dev,
        "link": str(Path(link).expanduser()),
        "prefix": str(root),
        "parent": root.parent.is_dir(),
        "elsewhere": _other_prefix(Path(link).expanduser(), root),
        "current": _described(root / "current"),
        "previous": _described(root / "previous"),
        "trees": [found for tree in _trees(root) if (found := _described(tree)) is not None],
        "in_use": sorted(_in_use(root)),
    }


def _described(link: Path) -> dict[str, Any] | None:
    """Return name and bundle.json of the tree behind a link."""
    try:
        tree = link.resolve(strict=True)
        return {"name": tree.name, **json.loads((tree / "bundle.json").read_text())}
    except (OSError, ValueError):
        return None


def _other_prefix(link: Path, root: Path) -> str | None:
    """Return the other prefix that a link leads to."""
    target = os.readlink(link) if link.is_symlink() else ""
    found = target.removesuffix(_TARGET)
    return found if target.endswith(_TARGET) and found != str(root) else None


def _in_use(root: Path) -> set[str]:
    """Return the names of trees that a process executes."""
    base = f"{root.resolve()}/"
    pids = filter(str.isdigit, os.listdir("/proc"))
    words = (word for pid in pids for word in command_line(pid)[:6])
    return {word[len(base) :].split("/")[0] for word in words if word.startswith(base)}


def find(prefix: str, name: str, content: str) -> dict[str, Any]:
    """Return the folder of a version with this content whose Python exists, or None.

    ``used``: it is the current or the previous version, and so has passed its self-test.
    """
    root = Path(prefix).expanduser()
    for candidate in candidates(root, name, content):
        if content_of(candidate) == content and works(candidate):
            linked = (_name(root / "current"), _name(root / "previous"))
            return {"tree": str(candidate), "used": candidate.name in linked}
    return {"tree": None, "used": False}


def candidates(root: Path, name: str, content: str) -> Iterable[Path]:
    """Return the folders that a version may have; the second if its name has other content."""
    return root / name, root / f"{name}-{content[:8]}"


def content_of(tree: Path) -> str:
    """Return the hash of the content; empty if ``tree`` is not a version."""
    try:
        return str(json.loads((tree / "bundle.json").read_text())["content"])
    except (OSError, ValueError, KeyError):
        return ""


def works(tree: Path) -> bool:
    """Return whether the Python that a tree was unpacked for exists."""
    return os.access(tree / "bin" / "python", os.X_OK)


def switch(prefix: str, link: str, name: str, returned: bool = False) -> dict[str, Any]:
    """Make ``name`` the current version, and what was current the previous one.

    ``returned``: both links lead to ``name`` then, so that the next rollback does not lead forward
    again; the version that was left stays until the next upgrade.
    """
    root = Path(prefix).expanduser()
    if not (root / name).is_dir():
        raise RemoteProblem(f"version {name} does not exist in {root}")
    _require_link(link)
    before = _name(root / "current")
    if returned or before not in ("", name):
        _point(root / "previous", name if returned else before)
    _point(root / "current", name)
    _point_link(link, root)
    return {}


def restore(prefix: str, current: str, previous: str) -> dict[str, Any]:
    """Undo a switch."""
    root = Path(prefix).expanduser()
    for link, name in (("current", current), ("previous", previous)):
        if name:
            _point(root / link, name)
        else:
            (root / link).unlink(missing_ok=True)
    return {}


def drop(prefix: str, tree: str) -> dict[str, Any]:
    """Remove a tree that does not work, unless it is used."""
    root, chosen = Path(prefix).expanduser(), Path(tree)
    if chosen.parent == root and chosen.name not in _kept(root):
        delete(chosen)
    return {}


def collect(prefix: str) -> dict[str, Any]:
    """Remove trees that are neither current nor previous and that no process executes."""
    root = Path(prefix).expanduser()
    kept = _kept(root)
    gone = [tree for tree in _trees(root) if tree.name not in kept]
    for tree in gone:
        delete(tree)
    sweep(root)
    return {"removed": [tree.name for tree in gone]}


def remove(prefix: str, link: str) -> dict[str, Any]:
    """Remove all versions and the link, unless a process executes one."""
    root, outer = Path(prefix).expanduser(), Path(link).expanduser()
    used = _in_use(root)
    if used:
        raise RemoteProblem(
            f"processes still run from {', '.join(sorted(used))} in {root}; list them with "
            f"`pgrep -af {root}`, end them, and run this command again"
        )
    if outer.is_symlink() and os.readlink(outer) == f"{root}{_TARGET}":
        outer.unlink()
    for tree in _trees(root):
        delete(tree)
    sweep(root)
    for name in ("current", "previous"):
        (root / name).unlink(missing_ok=True)
    with suppress(OSError):
        root.rmdir()  # unless it contains other files
    for folder in (root.parent, outer.parent):
        remove_unused(folder)
    return {}


def _kept(root: Path) -> set[str]:
    return {_name(root / "current"), _name(root / "previous")} | _in_use(root)


def _trees(root: Path) -> list[Path]:
    """Return all complete versions."""
    found = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in found if not path.is_symlink() and (path / "bundle.json").is_file()]


def delete(tree: Path) -> None:
    """Remove a tree; if this is interrupted, what is left is not a tree any more."""
    gone = tree.with_name(f".new-{tree.name}.{os.getpid()}")
    with in_work(tree):
        tree.rename(gone)
        shutil.rmtree(gone)


@contextmanager
def in_work(tree: Path) -> Iterator[None]:
    """Keep a tree that is being unpacked or removed; raises BlockingIOError if another does."""
    handle = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def sweep(root: Path) -> None:
    """Remove what operations have left that were interrupted."""
    for leftover in root.glob(".new-*"):
        with suppress(FileNotFoundError, BlockingIOError), in_work(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def make_room(prefix: str) -> dict[str, Any]:
    """Remove what interrupted operations have left; return the free space."""
    root = Path(prefix).expanduser()
    sweep(root)
    return {"free": shutil.disk_usage(existing(root)).free}


def _name(link: Path) -> str:
    """Return the name of the tree behind a link; empty without one."""
    tree = link.resolve()
    return tree.name if link.is_symlink() and tree.is_dir() else ""


def _require_link(link: str) -> None:
    outer = Path(link).expanduser()
    if outer.exists() and not outer.is_symlink():
        raise RemoteProblem(f"{outer} exists and is not a link of dora; move it aside")


def _point_link(link: str, root: Path) -> None:
    """Make the link of users and services lead to the current version."""
    outer, target = Path(link).expanduser(), f"{root}{_TARGET}"
    if not outer.is_symlink() or os.readlink(outer) != target:
        outer.parent.mkdir(parents=True, exist_ok=True)
        _point(outer, target)


def _point(link: Path, target: str) -> None:
    """Create or replace a link in one step."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


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
    old = [one for one in folder.glob(f"*{_SUFFIX}") if _age(one) > ABANDONED_SECONDS]
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
        raise RemoteProblem(
            f"the archive arrived broken (SHA-256 {found}, sent was {sha256}): try again"
        )
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
        # The first releases of Python 3.11 lack filters; the hash of the archive is verified.
        filters: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        try:
            packed.extractall(fresh, **filters)
        except OSError as error:
            error.filename = error.filename or str(root)  # unset if the disk is full
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
        check=False,  # packages contain files that cannot be compiled, which dora does not import
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
            delete(candidate)  # no process runs from a tree whose Python was removed
        _sync(fresh)  # the tree must be on disk before it gets its name
        fresh.rename(candidate)
        return candidate
    raise RemoteProblem(f"{root / name} exists and is not a version of dora; move it aside")


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
