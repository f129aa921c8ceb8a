"""Installs the running version of dora on a machine: probe, build, send, unpack, test, switch."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dora_cluster.bundle.dependencies import Platform, UnknownPlatform, install, lock_text
from dora_cluster.bundle.formats import OURS, Formats
from dora_cluster.bundle.layout import COORDINATOR, SYSTEM, USER, USERS_COORDINATOR, Layout
from dora_cluster.bundle.own_packages import OwnPackages, packages_for_machines
from dora_cluster.connection import MachineConnection
from dora_cluster.errors import RemoteCommandFailed
from dora_cluster.remote_call import MachineProblem, call
from dora_config.errors import DoraError
from dora_config.installation import MANIFEST

UNPACK_TIMEOUT = 300.0
"""Seconds to unpack an archive on a machine."""
SELF_TEST_TIMEOUT = 420.0
"""Seconds for the self-test on a machine."""
TESTED_MODULES = (
    *("dora_daemon.agent.service", "dora_daemon.runner.background", "dora_daemon.link.process"),
    *("dora_node_api", "pyarrow", "numpy", "zenoh", "psutil", "cryptography.x509", "websockets"),
    "PIL.Image",
)
"""Modules of daemon, runner, link and node, and every compiled library."""
SPARE_BYTES = 64 * 1024 * 1024
"""Bytes that must stay free on a machine's disk."""
KEPT_ARCHIVES = 8
"""Newest archives in the cache of this computer; older ones are removed."""

Report = Callable[[str], None]

_SHOWN_IN_MIB: Final = 10 << 20
"""Bytes at and above which sizes are shown in MiB."""

ABANDONED_SECONDS: Final = 24 * 3600.0
"""Seconds after which an unfinished archive is removed."""

COMPRESSION: Final = 3
"""Level of gzip: it takes 4 s per tree; the best level takes 20 s for a seventh less size."""

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

NODE_PROGRAM: Final = """\
#!/bin/sh
exec "${{0%/*}}/python" -c "from {module} import {function}; {function}()" "$@"
"""
"""Program of a node by name."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``bundle.json`` of a tree."""

    version: str
    platform: str
    python: str
    """``3.11``: version of bin/python, and name of the folder of site-packages."""
    content: str
    """SHA-256 of all files, their names and their executable bits."""
    unpacked: int
    """Bytes of all files."""
    formats: Formats
    """Versions of the messages and files that the installed version sends and stores."""


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
        programs = tree / "bin"
        programs.mkdir()
        (programs / "dora").write_text(LAUNCHER.format(version=own.version, python=python))
        for name, value in own.nodes().items():
            module, _, function = value.partition(":")
            text = NODE_PROGRAM.format(module=module, function=function)
            (programs / name).write_text(text)
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
            # A power cut must not leave an incomplete archive with the final name.
            os.fsync(written.fileno())
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


def _executable(tree: Path, path: Path) -> bool:
    return path.parent == tree / "bin"


def _content_hash(tree: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(tree)}\0{_executable(tree, path):d}\0{value}\n".encode())
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
            entry = _entry(name, path.stat().st_size, executable=_executable(tree, path))
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
        if time.time() - leftover.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def sending(report: Callable[[str], None], total: int, *, offset: int = 0) -> Callable[[int], None]:
    """Return a function that reports ``sending 12 of 83 MiB`` for the bytes since ``offset``."""
    shift, unit = (20, "MiB") if total >= _SHOWN_IN_MIB else (10, "KiB")
    shown = -1

    def progress(sent: int) -> None:
        nonlocal shown
        now = (offset + sent) >> shift
        if now != shown:
            shown = now
            report(f"sending {now} of {total >> shift} {unit}")

    progress(0)
    return progress


@dataclass(frozen=True, slots=True)
class Installed:
    """A version on a machine."""

    dora: str
    """Absolute path of the link that users and services execute."""
    tree: str


def cache_dir() -> Path:
    """Return the account's folder for archives."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "dora"


class Installer:
    """Installs versions on the machines of one command; several threads may use it.

    The archive of each platform is built once.
    """

    def __init__(
        self,
        offline: Path | None = None,
        packages: Callable[[], OwnPackages] = packages_for_machines,
    ) -> None:
        """``offline``: a folder of wheels to use instead of the package index."""
        self._offline = offline
        self._packages = packages
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._made: dict[str, Archive | DoraError | OSError] = {}
        """Archive of each platform, or the error why it could not be built."""
        self._packed: OwnPackages | None = None

    @property
    def version(self) -> str:
        """The version to install; raises NotBundled."""
        return self._own().version

    def _own(self) -> OwnPackages:
        """Return the packages of the running version; raises NotBundled."""
        with self._lock:
            if self._packed is None:
                self._packed = self._packages()
            return self._packed

    def _archive(self, platform: Platform, report: Report) -> Archive:
        """Return the archive of a platform, built at the first call.

        Raises NotBundled, WheelsMissing and OSError; further calls raise the same error.
        """
        own = self._own()
        with self._lock:
            lock = self._locks.setdefault(platform.key, threading.Lock())
        with lock:
            made = self._made.get(platform.key)
            if made is None:
                try:
                    made = self._make(platform, own, report)
                except (DoraError, OSError) as error:
                    made = error
                self._made[platform.key] = made
        if isinstance(made, Archive):
            return made
        raise made

    def _make(self, platform: Platform, own: OwnPackages, report: Report) -> Archive:
        digest = hashlib.sha256((lock_text() + own.digest()).encode()).hexdigest()
        folder = cache_dir() / "archives"
        target = folder / f"{own.version}-{platform.key}-{digest[:16]}.tar.gz"
        try:
            found = read_archive(target)
            target.touch()
            return found
        except (OSError, ValueError, KeyError, TypeError, EOFError, tarfile.TarError, zlib.error):
            pass  # missing or corrupt: build it again

        def put(site: Path) -> None:
            report(f"fetching wheels for {platform}")
            install(platform, site, offline=self._offline)
            report(f"packing dora {own.version}")

        made = make_archive(platform, own, put, target)
        remove_old(folder, keep=KEPT_ARCHIVES)
        return made

    def ensure_installed(
        self, machine: MachineConnection, layout: Layout, report: Report
    ) -> Installed:
        """Install the running version, test it and switch to it, unless this was done already.

        Raises DoraError, and leaves the machine as it was before.
        """
        tree, facts = self.put(machine, layout, report)
        switch(machine, layout, Path(tree).name)
        collect(machine, layout)
        return Installed(str(facts["link"]), tree)

    def put(
        self, machine: MachineConnection, layout: Layout, report: Report
    ) -> tuple[str, dict[str, Any]]:
        """Install and test the running version without switching; return its tree and the facts."""
        facts = probe(machine, layout)
        try:
            platform = Platform.from_probe(facts)
        except UnknownPlatform as problem:
            raise MachineProblem(machine.name, str(problem)) from None
        archive = self._archive(platform, report)
        found = call(
            machine,
            "versions.find",
            prefix=layout.prefix,
            name=archive.name,
            content=archive.manifest.content,
        )
        if found["used"]:
            return str(found["tree"]), facts
        if found["tree"] is not None:  # unpacked, but its test or the switch to it was interrupted
            tree = str(found["tree"])
        else:
            # Remove the leftovers of killed commands before the free space is checked.
            left = call(machine, "versions.make_room", prefix=layout.prefix, sudo=layout.sudo)
            _require_room(machine, archive, {**facts, **left})
            tree = _send(machine, archive, layout, report)
        report("self-test")
        try:
            if facts["current"] is None:
                load_test(machine, tree)
            else:
                self_test(machine, tree)
        except MachineProblem:
            call(machine, "versions.drop", prefix=layout.prefix, tree=tree, sudo=layout.sudo)
            raise
        return tree, facts

    def remove(self, machine: MachineConnection, layout: Layout) -> None:
        """Remove all versions and the link; raises MachineProblem while processes run from one."""
        probe(machine, layout)  # refuses another folder
        call(machine, "versions.remove", prefix=layout.prefix, link=layout.link, sudo=layout.sudo)


def probe(machine: MachineConnection, layout: Layout) -> dict[str, Any]:
    """Return the installed versions; raises MachineProblem if they are in another folder."""
    facts = call(machine, "versions.probe", prefix=layout.prefix, link=layout.link)
    if facts["elsewhere"] is not None:
        raise MachineProblem(
            machine.name,
            f"dora is installed in {facts['elsewhere']} there (to which {layout.link} leads), and "
            f"the cluster file has {layout.prefix}; to move it, run `dora cluster uninstall` with "
            f"`prefix: {facts['elsewhere']}` first",
        )
    if not facts["parent"] and layout not in (USER, SYSTEM, COORDINATOR, USERS_COORDINATOR):
        raise MachineProblem(
            machine.name,
            f"the folder above {layout.prefix} (`prefix` in the cluster file) does not exist; "
            "create it there, or mount its disk",
        )
    return facts


def switch(
    machine: MachineConnection, layout: Layout, name: str, *, returned: bool = False
) -> None:
    """Make a tree the current one; ``returned``: to an earlier version."""
    where: dict[str, Any] = {"prefix": layout.prefix, "link": layout.link, "sudo": layout.sudo}
    call(machine, "versions.switch", name=name, returned=returned, **where)


def collect(machine: MachineConnection, layout: Layout) -> None:
    """Remove versions that are neither current nor previous and that nothing runs from."""
    call(machine, "versions.collect", prefix=layout.prefix, sudo=layout.sudo)


def self_test(machine: MachineConnection, tree: str) -> None:
    """Run the self-test of a tree; raises MachineProblem with its output."""
    _try(machine, tree, ["bin/dora", "self", "test"])


def load_test(machine: MachineConnection, tree: str) -> None:
    """Import what a machine needs from a tree; raises MachineProblem with the output.

    Enough where no other version runs: the daemon is started from it next.
    """
    _try(machine, tree, ["bin/python", "-I", "-c", f"import {', '.join(TESTED_MODULES)}"])


def _try(machine: MachineConnection, tree: str, words: Sequence[str]) -> None:
    done = machine.run([f"{tree}/{words[0]}", *words[1:]], timeout=SELF_TEST_TIMEOUT)
    if done.code != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-12:]
        shown = "\n".join(f"  {line}" for line in lines)
        raise MachineProblem(
            machine.name,
            f"the version {Path(tree).name} does not pass its self-test there and is not used:\n"
            f"{shown}",
        )


def _require_room(machine: MachineConnection, archive: Archive, facts: dict[str, Any]) -> None:
    unpacked = archive.manifest.unpacked * 3 // 2  # with byte code
    if facts["device"] == facts["archives_device"]:
        needed = [(facts["prefix"], facts["free"], unpacked + archive.size)]
    else:
        needed = [
            (facts["prefix"], facts["free"], unpacked),
            (facts["archives"], facts["archives_free"], archive.size),
        ]
    for place, free, size in needed:
        if free < size + SPARE_BYTES:
            raise MachineProblem(
                machine.name,
                f"the disk of {place} has {free >> 20} MiB free, dora needs "
                f"{(size + SPARE_BYTES) >> 20} MiB; make room there",
            )


def _send(machine: MachineConnection, archive: Archive, layout: Layout, report: Report) -> str:
    """Send what is missing of an archive and unpack it; return its tree."""
    there = call(machine, "versions.partial", sha256=archive.sha256)
    path, size = str(there["path"]), int(there["size"])
    if size < archive.size:
        progress = sending(report, archive.size, offset=size)
        try:
            machine.send(archive.path, path, offset=size, progress=progress)
        except RemoteCommandFailed:  # such as a full disk: a retry cannot resume
            call(machine, "versions.discard", path=path)
            raise
    report("unpacking")
    try:
        answer = call(
            machine,
            "versions.unpack",
            sudo=layout.sudo,
            timeout=UNPACK_TIMEOUT,
            path=path,
            sha256=archive.sha256,
            prefix=layout.prefix,
            name=archive.name,
        )
    except MachineProblem:
        call(machine, "versions.discard", path=path)
        raise
    call(machine, "versions.discard", path=path)
    return str(answer["tree"])
