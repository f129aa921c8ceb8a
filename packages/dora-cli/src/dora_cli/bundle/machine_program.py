"""What is done on a machine: runs there as ``python3 -I - COMMAND JSON``, with this file as input.

Needs nothing but the standard library. Prints one line of JSON; ``{"problem": ...}`` and exit code
1 when it could not be done. Trees lie below one folder, the prefix:

    PREFIX/<version>-py<X.Y>[-<hash>]   a tree; complete once it has this name
    PREFIX/current, PREFIX/previous     links to the tree that is in use and the one before; both
                                        lead to the same tree after a rollback
    PREFIX/.new-*                       a tree that is being unpacked

The `dora` that users and services call is a link to ``PREFIX/current/bin/dora``: switching replaces
one link, so there is no moment without a whole version.
"""

from __future__ import annotations

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ABANDONED = 24 * 3600.0
"""Seconds after which what was begun and not finished is removed."""


_NOT_COMPILED = r"/(tests|pip|pygments/(lexers|styles|formatters))/"
"""Folders of modules that dora imports rarely or not at all."""


class Problem(Exception):
    """A sentence for the user."""


def main() -> int:
    command, text = sys.argv[1:3]
    arguments = json.loads(text)
    os.umask(0o022)
    try:
        answer = COMMANDS[command](**arguments)
    except Problem as problem:
        answer = {"problem": str(problem)}
    except OSError as error:
        place = error.filename or arguments.get("prefix")
        named = f"{place}: " if place else ""
        answer = {"problem": f"{named}{error.strerror or error}", "errno": error.errno}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "problem" in answer else 0


# ---------------------------------------------------------------------------------- looking


def probe(prefix: str, link: str) -> dict[str, Any]:
    """What decides which files run here, what is installed, and how much room there is."""
    libc, version = _libc()
    root = _path(prefix)
    return {
        "system": platform.system(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": libc,
        "libc_version": version,
        "python": list(sys.version_info[:3]),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "executable": _own_python(),
        "free": shutil.disk_usage(_existing(root)).free,
        "device": _existing(root).stat().st_dev,
        "archives": str(_archives()),
        "archives_free": shutil.disk_usage(_existing(_archives())).free,
        "archives_device": _existing(_archives()).stat().st_dev,
        "home": str(Path.home()),
        "prefix": str(root),
        "parent": root.parent.is_dir(),
        "elsewhere": _elsewhere(_path(link), root),
        "current": _described(root / "current"),
        "previous": _described(root / "previous"),
        "trees": [found for tree in _trees(root) if (found := _described(tree)) is not None],
        "in_use": sorted(_in_use(root)),
        "root": os.geteuid() == 0,
    }


def _libc() -> tuple[str, str]:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        text = ""
    if text.startswith("glibc "):
        return "glibc", text.split()[1]
    for loader in sorted(Path("/lib").glob("ld-musl-*.so.1")):
        said = subprocess.run([str(loader)], capture_output=True, text=True, check=False).stderr
        for line in said.splitlines():
            if line.startswith("Version "):
                return "musl", line.split()[1]
    return platform.libc_ver()


def _own_python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _archives() -> Path:
    """Where archives are received."""
    return Path.home() / ".cache" / "dora" / "archives"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _described(link: Path) -> dict[str, Any] | None:
    """The tree behind a link: its name and its bundle.json."""
    try:
        tree = link.resolve(strict=True)
        return {"name": tree.name, **json.loads((tree / "bundle.json").read_text())}
    except (OSError, ValueError):
        return None


def _elsewhere(outer: Path, root: Path) -> str | None:
    """The other prefix that a link leads to."""
    tail = "/current/bin/dora"
    target = os.readlink(outer) if outer.is_symlink() else ""
    found = target.removesuffix(tail)
    return found if target.endswith(tail) and found != str(root) else None


def _in_use(root: Path) -> set[str]:
    """Names of trees that some process executes from, or has its program in."""
    base = f"{root.resolve()}/"
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            for word in words[:6]:
                text = os.fsdecode(word)
                if text.startswith(base):
                    found.add(text[len(base) :].split("/")[0])
    return found


# ------------------------------------------------------------------------------- installing


def partial(sha256: str) -> dict[str, Any]:
    """A file of this transfer alone for an archive, with as much as earlier ones have sent."""
    folder = _archives()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > ABANDONED:
            old.unlink(missing_ok=True)
    begun = sorted(folder.glob(f"{sha256}*.part"), key=lambda one: one.stat().st_size)
    handle, name = tempfile.mkstemp(".part", f"{sha256}.", folder)
    path = Path(name)
    with os.fdopen(handle, "wb") as file:
        if begun:  # a copy: a writer whose connection was lost may still add to the old file
            with begun[-1].open("rb") as before:
                shutil.copyfileobj(before, file)
    for one in begun:
        one.unlink(missing_ok=True)
    return {"path": str(path), "size": path.stat().st_size}


def discard(path: str) -> dict[str, Any]:
    """Remove an archive, and the folders that were made for it."""
    Path(path).unlink(missing_ok=True)
    _remove_empty(Path(path).parent)
    return {}


def _remove_empty(folder: Path) -> None:
    """``folder`` and those above it, as far as they are empty and below the home."""
    home = Path.home()
    while home in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def unpack(path: str, sha256: str, prefix: str, name: str) -> dict[str, Any]:
    """Make the tree ``name`` of an archive; gives its folder. It is there whole or not at all."""
    archive = Path(path)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        archive.unlink()
        raise Problem(f"the archive arrived broken (SHA-256 {found}, sent was {sha256}): try again")
    root = _path(prefix)
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        fresh.chmod(0o755)
        with tarfile.open(archive) as packed:
            # our own archive, whose hash is right; early 3.11 knows no filters
            filters: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            packed.extractall(fresh, **filters)
        _make_runnable(fresh)
        tree = _place(root, name, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return {"tree": str(tree)}


def _make_runnable(tree: Path) -> None:
    """Add bin/python and what makes it see this tree alone; byte code if the tree is root's, which
    others cannot add to. Elsewhere Python keeps the byte code of what it imports.
    """
    python = Path(_own_python())
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
        check=False,  # a file that cannot be compiled is not one that we import
    )


def _content(tree: Path) -> str:
    try:
        return str(json.loads((tree / "bundle.json").read_text())["content"])
    except (OSError, ValueError, KeyError):
        return ""


def _place(root: Path, name: str, fresh: Path) -> Path:
    """Give a complete tree its name: another one when there is other content of that name."""
    content = _content(fresh)
    for candidate in (root / name, root / f"{name}-{content[:8]}"):
        if candidate.exists():
            if _content(candidate) != content:
                continue
            if _works(candidate):
                return candidate
            _delete(candidate)  # made for a Python that has gone: nothing runs from it
        os.sync()  # whole on disk before its name says that it is whole
        fresh.rename(candidate)
        return candidate
    raise Problem(f"{root / name} is in the way: it is no version of dora")


def _works(tree: Path) -> bool:
    return os.access(tree / "bin" / "python", os.X_OK)


def find(prefix: str, name: str, content: str) -> dict[str, Any]:
    """The folder of a tree with that content, if it is here and its Python still is."""
    root = _path(prefix)
    for candidate in (root / name, root / f"{name}-{content[:8]}"):
        if _content(candidate) == content and _works(candidate):
            return {"tree": str(candidate)}
    return {"tree": None}


# -------------------------------------------------------------------------------- switching


def switch(prefix: str, link: str, tree: str) -> dict[str, Any]:
    """Make ``tree`` the current version; what was current is the previous one.

    Gives the names of both as they were, for ``restore``.
    """
    root, chosen = _path(prefix), Path(tree)
    before = {"current": _name(root / "current"), "previous": _name(root / "previous")}
    outer = _path(link)
    _require_free(outer)
    if before["current"] not in ("", chosen.name):
        _point(root / "previous", before["current"])
    _point(root / "current", chosen.name)
    _point_outer(root, outer)
    return before


def _require_free(outer: Path) -> None:
    if outer.exists() and not outer.is_symlink():
        raise Problem(f"{outer} is in the way: it is not a link that dora made; move it aside")


def _point_outer(root: Path, outer: Path) -> None:
    wanted = str(root / "current" / "bin" / "dora")
    if not outer.is_symlink() or os.readlink(outer) != wanted:
        outer.parent.mkdir(parents=True, exist_ok=True)
        _point(outer, wanted)


def restore(prefix: str, current: str, previous: str) -> dict[str, Any]:
    """Take a switch back: the links as they were."""
    root = _path(prefix)
    for link, name in (("current", current), ("previous", previous)):
        if name:
            _point(root / link, name)
        else:
            (root / link).unlink(missing_ok=True)
    return {}


def rollback(prefix: str, link: str, name: str) -> dict[str, Any]:
    """Return to the tree ``name``. Both links lead to it then, so that the next rollback does not
    lead forward again; the tree that is left stays until the next upgrade.
    """
    root, outer = _path(prefix), _path(link)
    if not (root / name).is_dir():
        raise Problem(f"there is no version {name} in {root} to return to")
    _require_free(outer)
    _point(root / "previous", name)
    _point(root / "current", name)
    _point_outer(root, outer)
    return {}


def drop(prefix: str, tree: str) -> dict[str, Any]:
    """Remove a tree that turned out not to work, unless it is used."""
    root, chosen = _path(prefix), Path(tree)
    kept = {_name(root / "current"), _name(root / "previous")} | _in_use(root)
    if chosen.name not in kept and chosen.parent == root:
        _delete(chosen)
    return {}


def collect(prefix: str) -> dict[str, Any]:
    """Remove trees that are neither current nor previous and that no process executes from."""
    root = _path(prefix)
    kept = {_name(root / "current"), _name(root / "previous")} | _in_use(root)
    removed = []
    for tree in _trees(root):
        if tree.name not in kept:
            removed.append(tree.name)
            _delete(tree)
    _sweep(root)
    return {"removed": removed}


def remove(prefix: str, link: str) -> dict[str, Any]:
    """Remove every version and the link; refused while a process executes from one."""
    root, outer = _path(prefix), _path(link)
    used = _in_use(root)
    if used:
        raise Problem(f"processes still run from {', '.join(sorted(used))} in {root}")
    wanted = str(root / "current" / "bin" / "dora")
    if outer.is_symlink() and os.readlink(outer) == wanted:
        outer.unlink()
    for tree in _trees(root):
        _delete(tree)
    _sweep(root, older=0.0)
    for name in ("current", "previous"):
        (root / name).unlink(missing_ok=True)
    with suppress(OSError):
        root.rmdir()  # unless somebody else keeps something there
    for folder in (root.parent, outer.parent):
        _remove_empty(folder)
    return {}


def _trees(root: Path) -> list[Path]:
    """All versions, whole ones."""
    found = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in found if not path.is_symlink() and (path / "bundle.json").is_file()]


def _delete(tree: Path) -> None:
    """A tree goes at once: what is cut off in between leaves no half of one."""
    gone = tree.with_name(f".new-{tree.name}.{os.getpid()}")
    os.utime(tree)  # not abandoned yet: nobody else is to sweep it away meanwhile
    tree.rename(gone)
    shutil.rmtree(gone)


def _target(link: Path) -> Path | None:
    """The tree behind a link, if both are there."""
    tree = link.resolve()
    return tree if link.is_symlink() and tree.is_dir() else None


def _name(link: Path) -> str:
    tree = _target(link)
    return tree.name if tree else ""


def _point(link: Path, target: str) -> None:
    """Make ``link`` point to ``target``; there is no moment without it."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _sweep(root: Path, older: float = ABANDONED) -> None:
    for leftover in root.glob(".new-*"):
        if time.time() - leftover.stat().st_mtime >= older:
            shutil.rmtree(leftover, ignore_errors=True)


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "probe": probe,
    "partial": partial,
    "discard": discard,
    "find": find,
    "unpack": unpack,
    "switch": switch,
    "restore": restore,
    "rollback": rollback,
    "drop": drop,
    "collect": collect,
    "remove": remove,
}

if __name__ == "__main__":
    sys.exit(main())
