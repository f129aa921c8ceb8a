"""Dependencies of a release for another platform: pinned by the lock file, fetched by uv.

uv unpacks wheels and does not keep them; pip fills a folder of wheels for ``--offline``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from packaging.requirements import Requirement

from dora_config.dataflow.compression import CODECS, library_problem
from dora_config.errors import DoraError
from dora_config.installation import install_command
from dora_daemon.build.pip_lines import uv_settings
from dora_daemon.build.python_env import find_uv

LOCK: Final = "requirements.lock"
"""File beside this module: every dependency of a release with the hashes of its wheels."""
FOR_MACHINES: Final = "for_machines.txt"
"""File beside this module: the names of the dependencies that machines need."""
CODECS_LOCK: Final = "codecs.lock"
"""File beside this module: libraries of codecs. Machines get the versions of this computer."""
FETCH_TIMEOUT: Final = 1800.0
"""Seconds for all downloads of a platform."""

_WHEELS_OF_THE_LOCK: Final = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
_CONSTRAINTS_OF_UV: Final = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT")
"""Variables to unset: uv refuses constraints without hashes, and the lock pins all versions."""
_MISSING: Final = re.compile(
    r"you require ([^\s,]+==[^\s,]+)|No matching distribution .* for (\S+)"
)

OLDEST_PYTHON = (3, 11)

_KEY = re.compile(r"(\w+)-(glibc|musl)(\d+)\.(\d+)-py(\d+)\.(\d+)(t?)")
_LEGACY = {(2, 5): "manylinux1", (2, 12): "manylinux2010", (2, 17): "manylinux2014"}
_FIRST_GLIBC = {"x86_64": 5, "i686": 5}
"""Minor version of the oldest glibc 2 with wheel tags, by machine; 17 on other machines."""
_UV_GLIBC = (17, 28, *range(31, 41))
"""Minor versions of glibc 2 that uv has a name for."""
_MACHINE_OF_32_BIT = {"x86_64": "i686", "aarch64": "armv7l", "armv8l": "armv7l"}
"""Machine name for a 32-bit Python, by the machine name of the kernel."""


class UnknownPlatform(DoraError):
    """Dora cannot be installed on that machine; ``str()`` gives the reason."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Properties of a machine that decide which wheels run there."""

    machine: str
    """Name as in wheels: x86_64, aarch64, ..."""
    libc: Literal["glibc", "musl"]
    libc_version: tuple[int, int]
    python: tuple[int, int, int]
    free_threaded: bool = False

    @classmethod
    def from_probe(cls, facts: Mapping[str, Any]) -> Platform:
        """Return the platform of the facts that ``remote_program.versions`` reports.

        Raises UnknownPlatform.
        """
        try:
            machine = str(facts["machine"])
            if int(facts["bits"]) == 32:
                machine = _MACHINE_OF_32_BIT.get(machine, machine)
            major, minor, micro = (int(number) for number in facts["python"])
            libc = str(facts["libc"])
            words = [int(number) for number in str(facts["libc_version"]).split(".")[:2]]
            if libc not in ("glibc", "musl") or len(words) != 2:
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownPlatform(
                "its C library is not glibc or musl of a known version, and others have no wheels; "
                f"facts about the machine: {dict(facts)}"
            ) from error
        if facts.get("system") != "Linux" or facts.get("implementation") != "cpython":
            raise UnknownPlatform(
                f"it has {facts.get('implementation')} on {facts.get('system')}; dora needs "
                "CPython on Linux"
            )
        return cls(
            machine,
            "glibc" if libc == "glibc" else "musl",
            (words[0], words[1]),
            (major, minor, micro),
            bool(facts.get("free_threaded")),
        )

    @classmethod
    def from_key(cls, key: str) -> Platform:
        """Return the platform with a :attr:`key`; raises UnknownPlatform."""
        found = _KEY.fullmatch(key)
        if found is None:
            raise UnknownPlatform(
                f"{key!r}: expected MACHINE-LIBC-PYTHON, for example aarch64-glibc2.36-py3.11"
            )
        machine, libc, first, second, major, minor, threaded = found.groups()
        python = (int(major), int(minor))
        if python < OLDEST_PYTHON:
            raise UnknownPlatform(f"{key!r}: dora needs Python 3.11 or newer")
        return cls(
            machine,
            "glibc" if libc == "glibc" else "musl",
            (int(first), int(second)),
            (*python, 0),
            threaded == "t",
        )

    @property
    def python_name(self) -> str:
        """Part of the name of a tree, such as ``py3.11``."""
        return f"py{self.python[0]}.{self.python[1]}{'t' if self.free_threaded else ''}"

    @property
    def abi(self) -> str:
        return f"cp{self.python[0]}{self.python[1]}{'t' if self.free_threaded else ''}"

    def __str__(self) -> str:
        libc = f"{self.libc} {self.libc_version[0]}.{self.libc_version[1]}"
        return f"{self.machine}, {libc}, Python {'.'.join(map(str, self.python))}"

    @property
    def key(self) -> str:
        """Part of the names of its archives; without the patch number of Python's version."""
        libc = f"{self.libc}{self.libc_version[0]}.{self.libc_version[1]}"
        return f"{self.machine}-{libc}-{self.python_name}"

    def tags(self) -> tuple[str, ...]:
        """Return platform tags of wheels that run there, newest first."""
        major, minor = self.libc_version
        if self.libc == "musl":
            return tuple(f"musllinux_{major}_{n}_{self.machine}" for n in range(minor, -1, -1))
        tags = []
        for number in range(minor, _FIRST_GLIBC.get(self.machine, 17) - 1, -1):
            tags.append(f"manylinux_{major}_{number}_{self.machine}")
            if (major, number) in _LEGACY:
                tags.append(f"{_LEGACY[major, number]}_{self.machine}")
        return (*tags, f"linux_{self.machine}")

    def uv_name(self) -> str:
        """Return uv's name of the newest kind of wheel that runs there; raises UnknownPlatform."""
        if self.free_threaded or self.machine not in ("x86_64", "aarch64"):
            kind = "free-threaded Python" if self.free_threaded else self.machine
            raise UnknownPlatform(
                f"{self}: dora cannot be installed, because Apache Arrow and Zenoh have no wheels "
                f"for {kind}"
            )
        if self.libc == "musl":
            return f"{self.machine}-unknown-linux-musl"
        fitting = [minor for minor in _UV_GLIBC if (2, minor) <= self.libc_version]
        if not fitting:
            raise UnknownPlatform(f"{self}: dora needs glibc 2.17 or newer")
        return f"{self.machine}-manylinux_2_{fitting[-1]}"

    def markers(self) -> dict[str, str]:
        """Return the variables of environment markers (``; python_version < "3.12"``) there.

        The others are those of this Python, which is CPython too.
        """
        major, minor, _ = self.python
        full = ".".join(map(str, self.python))
        return {
            "implementation_version": full,
            "platform_machine": self.machine,
            "python_full_version": full,
            "python_version": f"{major}.{minor}",
            "platform_system": "Linux",
            "sys_platform": "linux",
        }


class WheelsMissing(DoraError):
    """Dependencies have no wheel for a platform; ``str()`` names what is missing."""


def lock_text() -> str:
    """Return the lock, with libraries of codecs if all codecs are usable on this computer."""
    text = (files("dora_cluster.bundle") / LOCK).read_text()
    return text + codecs_lock() if all(library_problem(one) is None for one in CODECS) else text


def codecs_lock() -> str:
    return (files("dora_cluster.bundle") / CODECS_LOCK).read_text()


def install(platform: Platform, site: Path, *, offline: Path | None = None) -> None:
    """Unpack every dependency for a platform into ``site``; raises WheelsMissing.

    They come from the folder ``offline`` if given, otherwise from the package index.
    """
    words = [_uv(), "pip", "install", "--quiet", "--no-progress", *_WHEELS_OF_THE_LOCK]
    words += ["--target", str(site), "--python", sys.executable]
    words += ["--python-platform", platform.uv_name()]
    words += ["--python-version", ".".join(map(str, platform.python))]
    environment = dict(os.environ)
    if offline is not None:
        words += ["--offline", *_find_links(offline)]
    else:
        environment |= uv_settings(environment)
    for name in _CONSTRAINTS_OF_UV:
        environment.pop(name, None)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:
        needed = set((files("dora_cluster.bundle") / FOR_MACHINES).read_text().split())
        needed |= {_name(line) for line in _locked(codecs_lock())}
        lock.writelines(f"{line}\n" for line in _locked() if _name(line) in needed)
        lock.flush()
        done = _run([*words, "--requirement", lock.name], platform, environment, cwd=site.parent)
    if done.returncode != 0:
        raise WheelsMissing(_explain(platform, offline, done.stderr))
    remove_scripts(site)


def download(platform: Platform, target: Path) -> int:
    """Add every dependency for a platform to a folder; return their number."""
    platform.uv_name()  # raises for a platform without wheels
    pins = list(pins_for(platform))
    target.mkdir(parents=True, exist_ok=True)
    listed = target / f".{platform.key}.{os.getpid()}.txt"
    words = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "download"]
    words += ["--quiet", *_WHEELS_OF_THE_LOCK, "--requirement", listed.name, "--dest", "."]
    words += ["--implementation", "cp"]
    words += ["--python-version", ".".join(map(str, platform.python))]
    for abi in (platform.abi, "abi3", "none"):
        words += ["--abi", abi]
    for tag in platform.tags():
        words += ["--platform", tag]
    listed.write_text("".join(f"{pin}\n" for pin in pins))
    try:
        # The lock pins all versions; an empty value would keep the constraints of pip.conf.
        environment = dict(os.environ) | {"PIP_CONSTRAINT": os.devnull}
        done = _run(words, platform, environment, cwd=target)
    finally:
        listed.unlink()
    if done.returncode != 0:
        raise WheelsMissing(_explain(platform, None, done.stderr))
    return len(pins)


def pins_for(platform: Platform, lock: str | None = None) -> Iterator[str]:
    """Yield the lines of the lock for a platform, without markers.

    pip would evaluate markers for the Python that runs it.
    """
    environment = platform.markers()
    for line in _locked(lock):
        words, *hashes = line.split(" --hash=")
        requirement = Requirement(words)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            shown = [f"--hash={value.strip()}" for value in hashes]
            yield " ".join([f"{requirement.name}{requirement.specifier}", *shown])


def _locked(lock: str | None = None) -> Iterator[str]:
    """Yield the lines of the lock: a requirement and its hashes."""
    text = lock_text() if lock is None else lock
    yield from text.replace("\\\n", " ").splitlines()


def _name(line: str) -> str:
    return line.partition("==")[0]


def _uv() -> str:
    """Return the path of uv."""
    found = find_uv(os.environ)
    if found is None:
        raise WheelsMissing(
            "uv is not installed beside this dora, but is needed to install dora on a machine: "
            f"{install_command('uv')}"
        )
    return found


def _find_links(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise WheelsMissing(f"--offline {folder}: the folder does not exist")
    return ["--no-index", "--find-links", str(folder.absolute())]


def _run(
    words: list[str], platform: Platform, environment: dict[str, str], *, cwd: Path
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_TIMEOUT,
            env=environment,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WheelsMissing(
            f"fetching wheels for {platform} took longer than {FETCH_TIMEOUT:g} s"
        ) from None


def _explain(platform: Platform, offline: Path | None, printed: str) -> str:
    missing = _MISSING.search(" ".join(printed.split()))
    source = "the package index" if offline is None else f"the folder {offline}"
    if missing:
        problem = f"{source} has no wheel of {missing[1] or missing[2]} for {platform}"
    else:
        problem = f"the wheels for {platform} cannot be installed from {source}"
    if "`--require-hashes` mode" in printed:
        remedy = (
            "remove constraint-dependencies and override-dependencies from the configuration of uv "
            "(uv.toml): they contradict the exact versions of this release"
        )
    elif offline is None:
        remedy = (
            "check the network and the disk of this computer; without a network, commands of "
            "`dora cluster` take a folder of wheels (--offline DIR)"
        )
    else:
        remedy = f"fill it on a machine with a network: dora self wheels DIR --for {platform.key}"
    lines = [line.strip() for line in printed.splitlines() if line.strip()][-3:]
    return "\n".join([problem, f"  {remedy}", *[f"  {line}" for line in lines]])


def remove_scripts(site: Path) -> None:
    """Remove scripts, which contain the path of this Python, so that trees are reproducible."""
    shutil.rmtree(site / "bin", ignore_errors=True)
    (site / ".lock").unlink(missing_ok=True)
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(("bin/", "../"))]
        if kept != lines:
            record.unlink()  # it may be a hard link into the cache of uv
            record.write_text("".join(kept))
