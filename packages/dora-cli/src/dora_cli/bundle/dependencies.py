"""Dependencies as wheels for another platform: pinned by our lock, fetched by pip, unpacked."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final

from packaging.requirements import Requirement

from dora_cli.bundle.platform import Platform
from dora_config.errors import DoraError

LOCK: Final = "requirements.lock"
"""Beside this module: every dependency of a release with the hashes of its wheels."""

FETCH_TIMEOUT: Final = 1800.0
"""Seconds for all downloads of a platform."""

_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class WheelsMissing(DoraError):
    """Not every dependency can be had for that platform; ``str()`` names what is missing."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One line of the lock."""

    requirement: Requirement
    hashes: frozenset[str]

    def line(self) -> str:
        """For pip; without the marker, which pip would judge by the Python that runs it."""
        version = next(iter(self.requirement.specifier)).version
        hashes = "".join(f" --hash=sha256:{value}" for value in sorted(self.hashes))
        return f"{self.requirement.name}=={version}{hashes}"


def lock_text() -> str:
    return (files("dora_cli.bundle") / LOCK).read_text()


def parse_lock(text: str) -> tuple[Pinned, ...]:
    """The pins of a lock; raises ValueError for a line that pins nothing."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        words = line.partition(" --hash=")[0].strip()
        if not words or words.startswith("#"):
            continue
        requirement = Requirement(words)
        hashes = frozenset(_HASH.findall(line))
        if [part.operator for part in requirement.specifier] != ["=="] or not hashes:
            raise ValueError(f"not pinned: {words}")
        pins.append(Pinned(requirement, hashes))
    return tuple(pins)


def wanted(pins: tuple[Pinned, ...], platform: Platform) -> tuple[Pinned, ...]:
    """The pins that apply on a platform."""
    environment = platform.markers()
    return tuple(
        pin
        for pin in pins
        if pin.requirement.marker is None or pin.requirement.marker.evaluate(environment)
    )


def fetch(platform: Platform, target: Path, *, offline: Path | None = None) -> tuple[Path, ...]:
    """The wheels for a platform, in ``target``, a folder of that platform alone.

    They come from the folder ``offline`` if given, else from the package index that pip is set up
    for. What ``target`` has already is used. Raises WheelsMissing.
    """
    pins = wanted(parse_lock(lock_text()), platform)
    target.mkdir(parents=True, exist_ok=True)
    listed = target / f".{platform.key}.{os.getpid()}.txt"
    listed.write_text("".join(f"{pin.line()}\n" for pin in pins))
    try:
        _download(platform, listed, target, offline)
    finally:
        listed.unlink()
    by_hash = {_sha256(path): path for path in sorted(target.glob("*.whl"))}
    found = []
    for pin in pins:
        fitting = [path for value, path in by_hash.items() if value in pin.hashes]
        if not fitting:
            raise WheelsMissing(f"{pin.requirement} was not fetched for {platform}")
        found.append(fitting[0])
    return tuple(found)


def _download(platform: Platform, listed: Path, target: Path, offline: Path | None) -> None:
    words = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "download"]
    words += ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    words += ["--requirement", str(listed), "--dest", str(target)]
    words += ["--implementation", "cp", "--python-version"]
    words += [".".join(str(number) for number in platform.python)]
    for abi in (platform.abi, "abi3", "none"):
        words += ["--abi", abi]
    for tag in platform.tags():
        words += ["--platform", tag]
    if offline is not None:
        if not offline.is_dir():
            raise WheelsMissing(f"--offline {offline}: there is no such folder")
        words += ["--no-index", "--find-links", str(offline)]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WheelsMissing(
            f"fetching wheels for {platform} took longer than {FETCH_TIMEOUT:g} s"
        ) from None
    if done.returncode != 0:
        raise WheelsMissing(_explain(platform, offline, done.stderr))


def _explain(platform: Platform, offline: Path | None, said: str) -> str:
    missing = re.search(r"No matching distribution found for (\S+)", said)
    what = f"no wheel of {missing[1]}" if missing else "not all wheels"
    if offline is None:
        problem = f"the package index has {what} for {platform}"
        remedy = "is the network there? Or give a folder of wheels with --offline DIR"
    else:
        problem = f"the folder {offline} has {what} for {platform}"
        remedy = f"fill it where there is a network: dora self wheels DIR --for {platform.key}"
    lines = [line for line in said.splitlines() if line.strip()][-3:]
    return "\n".join([problem, f"  {remedy}", *[f"  pip: {line}" for line in lines]])


def unpack(wheel: Path, site: Path) -> None:
    """Put the files of a wheel into ``site``; scripts and headers are of no use there."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = _place(PurePosixPath(info.filename))
            if info.is_dir() or path is None:
                continue
            if path.is_absolute() or ".." in path.parts:
                raise WheelsMissing(f"{wheel.name} has a file outside of itself: {info.filename}")
            target = site / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(info))


def _place(path: PurePosixPath) -> PurePosixPath | None:
    """Where a file of a wheel goes; ``None``: nowhere."""
    if not path.parts or not path.parts[0].endswith(".data"):
        return path
    if path.parts[1:2] in (("purelib",), ("platlib",)):
        return PurePosixPath(*path.parts[2:])
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
