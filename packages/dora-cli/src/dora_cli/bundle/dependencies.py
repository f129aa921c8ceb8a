"""Dependencies of a release for another platform: pinned by the lock file, fetched by uv.

uv unpacks wheels and does not keep them; pip fills a folder of wheels for ``--offline``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from dora_cli.bundle.platform import Platform
from dora_config.errors import DoraError
from dora_daemon.build.pip_lines import uv_settings
from dora_daemon.build.python_env import find_uv

LOCK: Final = "requirements.lock"
"""Beside this module: every dependency of a release with the hashes of its wheels."""
FETCH_TIMEOUT: Final = 1800.0
"""Seconds for all downloads of a platform."""

_WHEELS_OF_THE_LOCK: Final = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
_MISSING: Final = re.compile(
    r"you require ([^\s,]+==[^\s,]+)|No matching distribution .* for (\S+)"
)


class WheelsMissing(DoraError):
    """Dependencies have no wheel for a platform; ``str()`` names what is missing."""


def lock_text() -> str:
    return (files("dora_cli.bundle") / LOCK).read_text()


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
    with as_file(files("dora_cli.bundle") / LOCK) as lock:
        done = _run([*words, "--requirement", str(lock)], platform, environment, cwd=site.parent)
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
        done = _run(words, platform, dict(os.environ), cwd=target)
    finally:
        listed.unlink()
    if done.returncode != 0:
        raise WheelsMissing(_explain(platform, None, done.stderr))
    return len(pins)


def pins_for(platform: Platform, lock: str | None = None) -> Iterator[str]:
    """Yield the lines of the lock for a platform, without markers.

    pip would evaluate those for the Python that runs it.
    """
    environment = platform.markers()
    text = lock_text() if lock is None else lock
    for line in text.replace("\\\n", " ").splitlines():
        words, *hashes = line.split(" --hash=")
        requirement = Requirement(words)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            shown = [f"--hash={value.strip()}" for value in hashes]
            yield " ".join([f"{requirement.name}{requirement.specifier}", *shown])


def _uv() -> str:
    """Return the path of uv."""
    found = find_uv(os.environ)
    if found is None:
        raise WheelsMissing(
            "uv is not installed beside this dora, but is needed to install dora on a machine: "
            "pip install uv"
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
    if offline is None:
        remedy = (
            "check the network and the disk of this computer; without a network, commands of "
            "`dora cluster` take a folder of wheels (--offline DIR)"
        )
    else:
        remedy = f"fill it on a machine with a network: dora self wheels DIR --for {platform.key}"
    lines = [line.strip() for line in printed.splitlines() if line.strip()][-3:]
    return "\n".join([problem, f"  {remedy}", *[f"  {line}" for line in lines]])


def remove_scripts(site: Path) -> None:
    """Remove files with the path of this Python, so that the same wheels give the same files."""
    shutil.rmtree(site / "bin", ignore_errors=True)
    (site / ".lock").unlink(missing_ok=True)
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(("bin/", "../"))]
        if kept != lines:
            record.unlink()  # it may be a hard link into the cache of uv
            record.write_text("".join(kept))
