"""Checks of `dora doctor`; each yields findings and prints nothing."""

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
"""Bytes of the pipe of the largest queue; the usual limit of an unprivileged user."""
ENOUGH_FILES = 4096
ENOUGH_MEMORY = 512 << 20
F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)


class CheckResult(StrEnum):
    """Result of a check."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `text` has the remedy unless the result is PASS."""

    result: CheckResult
    subject: str
    text: str


Check = Callable[[], Iterator[Finding]]


def check_versions() -> Iterator[Finding]:
    """Check that all wheels of dora are installed in one version."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for wheel in WHEELS:
        try:
            found[wheel] = version(wheel)
        except PackageNotFoundError:
            yield Finding(CheckResult.FAIL, wheel, f"not installed: pip install {wheel}")
    if len(set(found.values())) > 1:
        listing = ", ".join(f"{wheel} {number}" for wheel, number in found.items())
        yield Finding(
            CheckResult.FAIL,
            "dora",
            f"versions differ ({listing}); install the same version of all",
        )
    else:
        yield Finding(
            CheckResult.PASS, "dora", f"{__version__}, {len(found)} wheels of the same version"
        )


def check_python() -> Iterator[Finding]:
    """Report the interpreter; check that pyarrow is installed."""
    from importlib.metadata import PackageNotFoundError, version

    number = platform.python_version()
    yield Finding(CheckResult.PASS, "Python", f"{number} at {sys.executable}")
    try:
        yield Finding(CheckResult.PASS, "pyarrow", version("pyarrow"))
    except PackageNotFoundError:
        yield Finding(
            CheckResult.FAIL,
            "pyarrow",
            f"not installed, and nodes need it: {sys.executable} -m pip install pyarrow",
        )


def check_programs() -> Iterator[Finding]:
    """Check for programs that some dataflows need."""
    from dora_daemon.build.python_env import find_uv

    uv = find_uv(os.environ)
    if uv is not None:
        yield Finding(CheckResult.PASS, "uv", uv)
    else:
        yield Finding(CheckResult.WARN, "uv", "not found (needed by --uv only): pip install uv")
    git = shutil.which("git")
    if git is not None:
        yield Finding(CheckResult.PASS, "git", git)
    else:
        yield Finding(
            CheckResult.WARN, "git", "not on PATH (needed by nodes with a `git` source only)"
        )


def check_shared_memory() -> Iterator[Finding]:
    """Check that memory files work and that memory is available."""
    if not hasattr(os, "memfd_create"):
        yield Finding(
            CheckResult.WARN,
            "shared memory",
            "no memory files on this system; unlinked files are used instead",
        )
        return
    try:
        descriptor = os.memfd_create("dora-doctor")
        try:
            os.posix_fallocate(descriptor, 0, 1 << 16)
        finally:
            os.close(descriptor)
    except OSError as error:
        yield Finding(
            CheckResult.FAIL, "shared memory", f"memory files do not work: {error.strerror}"
        )
        return
    free = _available_memory()
    if free is not None and free < ENOUGH_MEMORY:
        yield Finding(
            CheckResult.WARN,
            "shared memory",
            f"memory files work, but only {free >> 20} MiB are available",
        )
    else:
        more = "" if free is None else f", {free >> 20} MiB of memory available"
        yield Finding(CheckResult.PASS, "shared memory", f"memory files work{more}")


def _available_memory() -> int | None:
    """Return the available bytes, None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kibibytes = next((x.split()[1] for x in lines if x.startswith("MemAvailable:")), None)
    return None if kibibytes is None else int(kibibytes) << 10


def check_pipes() -> Iterator[Finding]:
    """Check the largest pipe (queues are pipes) and the limit of open files."""
    if F_SETPIPE_SZ is None:
        yield Finding(
            CheckResult.WARN, "pipes", "fixed size on this system: long queues are not possible"
        )
    else:
        read, write = os.pipe()
        try:
            size = fcntl.fcntl(write, F_SETPIPE_SZ, LARGEST_PIPE)
            yield Finding(
                CheckResult.PASS, "pipes", f"up to {size >> 10} KiB, enough for any queue"
            )
        except OSError:
            yield Finding(
                CheckResult.WARN,
                "pipes",
                f"the system refuses {LARGEST_PIPE >> 10} KiB, so long queues are shortened; "
                "raise /proc/sys/fs/pipe-max-size and pipe-user-pages-soft",
            )
        finally:
            os.close(read)
            os.close(write)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        yield Finding(
            CheckResult.WARN,
            "open files",
            f"limit {hard} per process; {ENOUGH_FILES} recommended for many nodes (ulimit -n)",
        )
    else:
        yield Finding(CheckResult.PASS, "open files", f"limit {soft}, can be raised to {hard}")


def check_state_dir() -> Iterator[Finding]:
    """Check that the state directory is writable."""
    from dora_config.access import state_dir

    directory = state_dir()
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if os.access(nearest, os.W_OK):
        yield Finding(CheckResult.PASS, "state", str(directory))
    else:
        yield Finding(
            CheckResult.FAIL,
            "state",
            f"{nearest} is not writable, but dora needs {directory}; change its permissions",
        )


def check_coordinator(host: str, port: int) -> Iterator[Finding]:
    """Check that a coordinator listens at the address."""
    try:
        with socket.create_connection((host, port), timeout=2.0):
            yield Finding(CheckResult.PASS, "coordinator", f"answers at {host}:{port}")
    except OSError:
        yield Finding(
            CheckResult.WARN,
            "coordinator",
            f"none at {host}:{port}; not needed for `dora run`, otherwise start one: dora up",
        )


def check_daemon_port() -> Iterator[Finding]:
    """Check whether a daemon uses the port for dynamic nodes."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DAEMON_PORT))
        except OSError:
            yield Finding(
                CheckResult.PASS, "daemon", f"port {DAEMON_PORT} is in use, normally by a daemon"
            )
        else:
            yield Finding(
                CheckResult.WARN, "daemon", f"none at port {DAEMON_PORT}; start one: dora up"
            )


def check_dataflow(path: Path) -> Iterator[Finding]:
    """Check a dataflow file; every problem is a finding."""
    from dora_config import ConfigError, load_dataflow

    if not path.is_file():
        yield Finding(CheckResult.FAIL, "dataflow", f"{path} does not exist")
        return
    try:
        loaded = load_dataflow(path, check_paths=True)
    except ConfigError as error:
        for problem in error.problems:
            verdict = CheckResult.FAIL if problem.severity == "error" else CheckResult.WARN
            yield Finding(verdict, "dataflow", str(problem))
        return
    for problem in loaded.warnings:
        if problem.severity == "warning":
            yield Finding(CheckResult.WARN, "dataflow", str(problem))
    yield Finding(CheckResult.PASS, "dataflow", f"{path}: {len(loaded.resolved.nodes)} nodes")
