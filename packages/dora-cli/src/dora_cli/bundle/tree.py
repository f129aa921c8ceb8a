"""The tree of a version for a platform, and its archive; the same files give the same bytes.

    bin/dora                     runs the tree's Python with nothing but the tree on its path
    bin/python, pyvenv.cfg       created on the machine: they contain the path of its Python
    lib/pythonX.Y/site-packages  packages of dora and their dependencies
    bundle.json                  see Manifest

It is laid out as a virtual environment, so that processes that the daemon starts with its own
interpreter (runners, nodes) find the same packages without any variable.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dora_cli.bundle.formats import OURS, Formats
from dora_cli.bundle.own_packages import OwnPackages
from dora_cli.bundle.platform import Platform

MANIFEST: Final = "bundle.json"

ABANDONED: Final = 24 * 3600.0
"""Seconds after which an unfinished archive is removed."""

COMPRESSION: Final = 3
"""Level of gzip: 4 s of one core for a tree; the best takes 20 s to save a seventh of its size."""

LAUNCHER: Final = """\
#!/bin/sh
# dora {version}: runs with the packages of this folder and no others.
program=$(readlink -f -- "$0") || exit 127
tree=${{program%/bin/dora}}
if [ ! -x "$tree/bin/python" ]; then
    echo "dora: $tree was installed for a Python {python} that was removed;" >&2
    echo "  run \\`dora cluster upgrade\\` again from the machine that installed it" >&2
    exit 127
fi
exec "$tree/bin/python" -I -m dora_config.launcher "$@"
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``bundle.json`` of a tree."""

    version: str
    platform: str
    python: str
    """``3.11``: version of bin/python, and name of the folder of site-packages."""
    content: str
    """SHA-256 over all files, their names and whether they can be executed."""
    unpacked: int
    """Bytes of all files."""
    formats: Formats
    """Versions of what it sends and stores."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A gzip-compressed tar of one tree."""

    path: Path
    sha256: str
    size: int
    manifest: Manifest

    @property
    def name(self) -> str:
        """Name of the tree on a machine: ``0.2.0-py3.11``."""
        return f"{self.manifest.version}-py{self.manifest.python}"


def make_archive(
    platform: Platform, own: OwnPackages, install: Callable[[Path], None], target: Path
) -> Archive:
    """Write the archive of a tree to ``target``, completely or not at all.

    ``install`` installs the dependencies into a folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    python = platform.python_name.removeprefix("py")
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as folder:
        tree = Path(folder) / "tree"
        site = tree / "lib" / f"python{python}" / "site-packages"
        site.mkdir(parents=True)
        install(site)
        for file in own.files:
            path = site / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        launcher = tree / "bin" / "dora"
        launcher.parent.mkdir()
        launcher.write_text(LAUNCHER.format(version=own.version, python=python))
        launcher.chmod(0o755)
        files = sorted(path for path in tree.rglob("*") if path.is_file())
        manifest = Manifest(
            own.version,
            platform.key,
            python,
            _content_hash(tree, files),
            sum(path.stat().st_size for path in files),
            OURS,
        )
        packed = Path(folder) / "archive"
        _pack(tree, files, manifest, packed)
        with packed.open("rb") as written:
            os.fsync(written.fileno())  # a name must not lead to half an archive after a power cut
        packed.replace(target)
    return read_archive(target)


def read_archive(path: Path) -> Archive:
    """Read an archive of :func:`make_archive`.

    Raises OSError and, for another or corrupt file, ValueError, KeyError, TypeError, EOFError,
    TarError and zlib.error.
    """
    with tarfile.open(path) as archive:
        first = archive.next()
        if first is None or first.name != MANIFEST:
            raise ValueError(f"{path} is not an archive of dora")
        file = archive.extractfile(first)
        assert file is not None
        manifest = Manifest(**json.load(file))
    with path.open("rb") as packed:
        digest = hashlib.file_digest(packed, "sha256").hexdigest()
    return Archive(path, digest, path.stat().st_size, manifest)


def _executable(path: Path) -> bool:
    return path.parent.name == "bin" and path.name == "dora"


def _content_hash(tree: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(tree)}\0{_executable(path):d}\0{value}\n".encode())
    return digest.hexdigest()


def _pack(tree: Path, files: Sequence[Path], manifest: Manifest, target: Path) -> None:
    """Write the files in order, without owners and times."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", COMPRESSION, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        text = json.dumps(asdict(manifest), indent=1).encode()
        archive.addfile(_entry(MANIFEST, len(text), executable=False), io.BytesIO(text))
        for path in files:
            name = path.relative_to(tree).as_posix()
            entry = _entry(name, path.stat().st_size, executable=_executable(path))
            with path.open("rb") as file:
                archive.addfile(entry, file)


def _entry(name: str, size: int, *, executable: bool) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o755 if executable else 0o644
    entry.mtime = 315532800  # 1980: some tools refuse earlier
    return entry


def remove_old(folder: Path, *, keep: int) -> None:
    """Remove all archives except the last used ones."""
    archives = sorted(folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in archives[keep:]:
        path.unlink(missing_ok=True)
    for leftover in folder.glob(".making-*"):
        if time.time() - leftover.stat().st_mtime > ABANDONED:
            shutil.rmtree(leftover, ignore_errors=True)
