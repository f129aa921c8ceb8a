"""What `dora doctor` looks at: each check returns findings and prints nothing."""

from __future__ import annotations

import fcntl
import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dora_cli._version import __version__

WHEELS = ("dora-config", "dora-node-api", "dora-coordinator", "dora-daemon", "dora-cli")
DAEMON_PORT = 53291
LARGEST_PIPE = 1 << 20
"""Bytes of a pipe that holds the largest queue; the usual limit of an unprivileged user."""
ENOUGH_FILES = 4096
ENOUGH_MEMORY = 512 << 20
F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `text` says what to do when it is no PASS."""

    verdict: Verdict
    subject: str
    text: str


Check = Callable[[], Iterator[Finding]]


def check_versions() -> Iterator[Finding]:
    """Our wheels are installed and of one version."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for wheel in WHEELS:
        try:
            found[wheel] = version(wheel)
        except PackageNotFoundError:
            yield Finding(Verdict.FAIL, wheel, f"not installed: pip install {wheel}")
    if len(set(found.values())) > 1:
        listing = ", ".join(f"{wheel} {number}" for wheel, number in found.items())
        yield Finding(
            Verdict.FAIL, "dora", f"the wheels differ ({listing}); install one version of all"
        )
    else:
        yield Finding(Verdict.PASS, "dora", f"{__version__}, {len(found)} wheels of one version")


def check_python() -> Iterator[Finding]:
    """The interpreter, and pyarrow in it."""
    from importlib.metadata import PackageNotFoundError, version

    number = platform.python_version()
    yield Finding(Verdict.PASS, "Python", f"{number} at {sys.executable}")
    try:
        yield Finding(Verdict.PASS, "pyarrow", version("pyarrow"))
    except PackageNotFoundError:
        yield Finding(
            Verdict.FAIL,
            "pyarrow",
            f"missing; nodes need it: {sys.executable} -m pip install pyarrow",
        )


def check_programs() -> Iterator[Finding]:
    """Programs that some dataflows need."""
    from dora_daemon.build.python_env import find_uv

    uv = find_uv(os.environ)
    if uv is not None:
        yield Finding(Verdict.PASS, "uv", uv)
    else:
        yield Finding(Verdict.WARN, "uv", "not found; only --uv needs it: pip install uv")
    git = shutil.which("git")
    if git is not None:
        yield Finding(Verdict.PASS, "git", git)
    else:
        yield Finding(Verdict.WARN, "git", "not on PATH; only nodes with a `git` source need it")


def check_shared_memory() -> Iterator[Finding]:
    """Memory files work, and there is memory for them."""
    if not hasattr(os, "memfd_create"):
        yield Finding(
            Verdict.WARN, "shared memory", "no memory files here; unlinked files are used instead"
        )
        return
    try:
        descriptor = os.memfd_create("dora-doctor")
        try:
            os.posix_fallocate(descriptor, 0, 1 << 16)
        finally:
            os.close(descriptor)
    except OSError as error:
        yield Finding(Verdict.FAIL, "shared memory", f"memory files do not work: {error.strerror}")
        return
    free = _available_memory()
    if free is not None and free < ENOUGH_MEMORY:
        yield Finding(
            Verdict.WARN, "shared memory", f"memory files work, but only {free >> 20} MiB are free"
        )
    else:
        more = "" if free is None else f", {free >> 20} MiB of memory free"
        yield Finding(Verdict.PASS, "shared memory", f"memory files work{more}")


def _available_memory() -> int | None:
    """Bytes that can still be used, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kibibytes = next((x.split()[1] for x in lines if x.startswith("MemAvailable:")), None)
    return None if kibibytes is None else int(kibibytes) << 10


def check_pipes() -> Iterator[Finding]:
    """Queues are pipes: their largest size, and how many files a process may open."""
    if F_SETPIPE_SZ is None:
        yield Finding(
            Verdict.WARN, "pipes", "their size is fixed here: long queues are not possible"
        )
    else:
        read, write = os.pipe()
        try:
            size = fcntl.fcntl(write, F_SETPIPE_SZ, LARGEST_PIPE)
            yield Finding(Verdict.PASS, "pipes", f"up to {size >> 10} KiB, enough for any queue")
        except OSError:
            yield Finding(
                Verdict.WARN,
                "pipes",
                f"{LARGEST_PIPE >> 10} KiB are refused, so long queues hold less than asked "
                "for; see /proc/sys/fs/pipe-max-size and pipe-user-pages-soft",
            )
        finally:
            os.close(read)
            os.close(write)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        yield Finding(
            Verdict.WARN,
            "open files",
            f"at most {hard} a process; {ENOUGH_FILES} are advised for many nodes (ulimit -n)",
        )
    else:
        yield Finding(Verdict.PASS, "open files", f"limit {soft}, may be raised to {hard}")


def check_state_dir() -> Iterator[Finding]:
    """Sockets and small files of running dataflows have a place."""
    from dora_config.access import state_dir

    directory = state_dir()
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if os.access(nearest, os.W_OK):
        yield Finding(Verdict.PASS, "state", str(directory))
    else:
        yield Finding(
            Verdict.FAIL, "state", f"{nearest} is not writable, and {directory} must lie there"
        )


def check_coordinator(host: str, port: int) -> Iterator[Finding]:
    """Whether something answers where the coordinator would be."""
    try:
        with socket.create_connection((host, port), timeout=2.0):
            yield Finding(Verdict.PASS, "coordinator", f"answers at {host}:{port}")
    except OSError:
        yield Finding(
            Verdict.WARN,
            "coordinator",
            f"none at {host}:{port}; `dora run` needs none, for the others: dora up",
        )


def check_daemon_port() -> Iterator[Finding]:
    """The port on which a daemon waits for dynamic nodes is free, or a daemon has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DAEMON_PORT))
        except OSError:
            yield Finding(
                Verdict.PASS, "daemon", f"port {DAEMON_PORT} is in use, by a daemon if all is well"
            )
        else:
            yield Finding(
                Verdict.WARN, "daemon", f"none at port {DAEMON_PORT} (it is free): dora up"
            )


def check_dataflow(path: Path) -> Iterator[Finding]:
    """A dataflow file is right; every problem is a finding."""
    from dora_config import ConfigError, load_dataflow

    if not path.is_file():
        yield Finding(Verdict.FAIL, "dataflow", f"{path} does not exist")
        return
    try:
        loaded = load_dataflow(path, check_paths=True)
    except ConfigError as error:
        for problem in error.problems:
            verdict = Verdict.FAIL if problem.severity == "error" else Verdict.WARN
            yield Finding(verdict, "dataflow", str(problem))
        return
    for problem in loaded.warnings:
        if problem.severity == "warning":
            yield Finding(Verdict.WARN, "dataflow", str(problem))
    yield Finding(Verdict.PASS, "dataflow", f"{path}: {len(loaded.resolved.nodes)} nodes")
