"""Checks of `dora doctor`; each yields findings and prints nothing."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Literal

import psutil

from dora_cli._version import __version__
from dora_config.dataflow.compression import CODECS, library_problem
from dora_config.installation import install_command, own_wheels, wheel_command, with_needed
from dora_config.linux import NeedsLinux
from dora_daemon.build.arrow_versions import CURE, find_conflict

MAX_PIPE = 1 << 20
"""Bytes in the pipe of the largest queue; the usual limit of an unprivileged user."""
ENOUGH_FILES = 4096
"""Limit of open files per process below which `dora doctor` warns."""
ENOUGH_MEMORY = 512 << 20
"""Bytes of available memory below which `dora doctor` warns."""


CheckResult = Literal["PASS", "WARN", "FAIL"]
"""Result of a check."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `text` has the remedy unless the result is PASS."""

    result: CheckResult
    subject: str
    text: str


_passed = partial(Finding, "PASS")
_warning = partial(Finding, "WARN")
_failure = partial(Finding, "FAIL")


def check_versions() -> Iterator[Finding]:
    """Check that the wheels of the core, and all other installed ones, have one version."""
    found = installed_wheels()
    for wheel in with_needed("dora-cli-core"):
        if wheel not in found:
            yield _failure(wheel, f"not installed: {wheel_command(wheel)}")
    if len(set(found.values())) > 1:
        listing = ", ".join(f"{wheel} {number}" for wheel, number in found.items())
        yield _failure("dora", f"versions differ ({listing}); install the same version of all")
    else:
        yield _passed("dora", f"{__version__}, {len(found)} wheels of the same version")


def installed_wheels() -> dict[str, str]:
    """Return the wheels of this project that are installed, lowest first, with their versions."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for wheel in own_wheels():
        with suppress(PackageNotFoundError):
            found[wheel] = version(wheel)
    return found


def check_plugins() -> Iterator[Finding]:
    """Import what plug-ins add, and report failures."""
    from dora_cli.command import command_for
    from dora_cli.registry import NAMES, Group
    from dora_cli.templates import OWN
    from dora_config import plugins

    own: dict[plugins.Group, Iterable[str]] = {"dora.commands": NAMES, "dora.templates": OWN}

    def build(name: str, entry: object) -> None:
        if not isinstance(entry, Group):  # its commands are imported at their first use
            command_for(name, entry)

    problems = list(plugins.problems(own, {"dora.commands": build}))
    for problem in problems:
        # not caused by a plug-in; the check of pyarrow reports it with a remedy
        if "pyarrow requires NumPy" not in problem:
            yield _warning("plug-ins", problem)
    wheels = sorted({one.by for one in plugins.installed().additions(*plugins.GROUPS)})
    if wheels and not problems:
        yield _passed("plug-ins", ", ".join(wheels))


def check_codecs() -> Iterator[Finding]:
    """Report the codecs of `compress:`, and how to install those that lack a library."""
    missing = {codec: library_problem(codec) for codec in CODECS}
    usable = ", ".join(codec for codec, problem in missing.items() if problem is None)
    lacking = "; ".join(problem for problem in missing.values() if problem is not None)
    yield _passed("codecs of `compress`", f"{usable}; {lacking}" if lacking else usable)


def check_python() -> Iterator[Finding]:
    """Report the interpreter; import there what every node imports."""
    yield _passed("Python", f"{platform.python_version()} at {sys.executable}")
    words = [sys.executable, "-P", "-c", _IMPORT_SCRIPT, *_IMPORTED_MODULES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found: dict[str, list[str | None]] = json.loads(done.stdout) if done.returncode == 0 else {}
    conflict = find_conflict([Path(sysconfig.get_path("purelib"))])
    for name in _IMPORTED_MODULES:
        version, about = found.get(name, [None, done.stderr[-200:]])
        if version is not None and (name != "dora" or _is_ours(str(about))):
            is_own = name == "dora"
            yield _passed("import of dora", str(about)) if is_own else _passed(name, version)
        elif name == "dora":
            remedy = wheel_command("dora-node-api", "--force-reinstall", "--no-deps")
            other = f"`import dora` gives {about}, which is not this dora (dora-rs?)"
            text = f"cannot be imported ({about})" if version is None else other
            yield _failure("import of dora", f"{text}: {remedy}")
        elif conflict is not None:
            yield _failure(name, f"{conflict}: {install_command(CURE)}")
        else:
            remedy = install_command("--force-reinstall", name)
            yield _failure(name, f"cannot be imported ({about}), and nodes need it: {remedy}")


_IMPORTED_MODULES = ("numpy", "pyarrow", "dora")
_IMPORT_SCRIPT = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        found[name] = [module.__version__, module.__file__]
    except ImportError as error:
        found[name] = [None, str(error)]
print(json.dumps(found))
"""


def _is_ours(file: str) -> bool:
    """Return whether a file is the package `dora` of this installation."""
    import dora_node_api

    api = Path(dora_node_api.__file__).resolve().parent
    places = (api / "front" / "dora", api.parent / "dora")
    return Path(file).resolve().parent in places


def check_dora_rs() -> Iterator[Finding]:
    """Warn if dora-rs-cli is installed here, because it overwrites the command `dora`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("dora-rs-cli")
    except PackageNotFoundError:
        return
    again = [wheel_command(name, "--force-reinstall", "--no-deps") for name in _OVERWRITTEN]
    remedy = "; ".join([f"{quote(sys.executable)} -m pip uninstall dora-rs-cli", *again])
    yield _warning("dora-rs-cli", f"{number} has replaced the command `dora` here: {remedy}")


_OVERWRITTEN = ("dora-config", "dora-cli-core")
"""Wheels whose files dora-rs-cli overwrites: the script `dora`, and the package dora_cli."""


def check_programs() -> Iterator[Finding]:
    """Check for programs that some dataflows need."""
    from dora_daemon.build.python_env import find_uv

    uv = find_uv(os.environ)
    missing = f"not found (pip builds nodes instead; --uv needs it): {install_command('uv')}"
    yield _warning("uv", missing) if uv is None else _passed("uv", uv)
    git = shutil.which("git")
    if git is not None:
        yield _passed("git", git)
    else:
        yield _warning("git", "not on PATH (needed by nodes with a `git` source only)")


def check_shared_memory() -> Iterator[Finding]:
    """Check that memory files work and that memory is available."""
    if sys.platform != "linux":
        yield _warning("nodes", str(NeedsLinux()))
        return
    try:
        descriptor = os.memfd_create("dora-doctor")
        try:
            os.posix_fallocate(descriptor, 0, 1 << 16)
        finally:
            os.close(descriptor)
    except OSError as error:
        yield _failure("shared memory", f"memory files do not work: {error.strerror}")
        return
    free = psutil.virtual_memory().available
    if free < ENOUGH_MEMORY:
        yield _warning(
            "shared memory", f"memory files work, but only {free >> 20} MiB are available"
        )
    else:
        yield _passed("shared memory", f"memory files work, {free >> 20} MiB of memory available")


def check_pipes() -> Iterator[Finding]:
    """Check the largest pipe (queues are pipes) and the limit of open files."""
    if sys.platform == "linux":
        read, write = os.pipe()
        try:
            size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, MAX_PIPE)
            yield _passed("pipes", f"up to {size >> 10} KiB, enough for any queue")
        except OSError:
            yield _warning(
                "pipes",
                f"the system refuses {MAX_PIPE >> 10} KiB, so long queues are shortened; "
                "raise /proc/sys/fs/pipe-max-size and pipe-user-pages-soft",
            )
        finally:
            os.close(read)
            os.close(write)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        yield _warning(
            "open files",
            f"limit {hard} per process; {ENOUGH_FILES} recommended for many nodes (ulimit -n)",
        )
    else:
        yield _passed("open files", f"limit {soft}, can be raised to {hard}")


def check_state_dir() -> Iterator[Finding]:
    """Check that the state directory is writable."""
    from dora_config.access import state_dir

    directory = state_dir()
    nearest = next(path for path in (directory, *directory.parents) if os.access(path, os.F_OK))
    if os.access(nearest, os.W_OK):
        yield _passed("state", str(directory))
    else:
        yield _failure(
            "state",
            f"{nearest} is not writable, but dora needs {directory}; change its permissions",
        )


def check_coordinator(host: str, port: int) -> Iterator[Finding]:
    """Check that a coordinator listens at the address."""
    try:
        with socket.create_connection((host, port), timeout=2.0):
            yield _passed("coordinator", f"answers at {host}:{port}")
    except (OSError, UnicodeError):  # UnicodeError: not a valid host name
        yield _warning(
            "coordinator",
            f"none at {host}:{port}; not needed for `dora run`, otherwise start one: dora up",
        )


def check_daemon() -> Iterator[Finding]:
    """Check whether a daemon of this account runs."""
    from dora_config.access import state_dir
    from dora_daemon.agent.part_files import is_running

    folder = state_dir() / "daemon"
    running: list[str] = []
    problems: list[str] = []
    try:
        folders = sorted(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        folders = []
        problems.append(f"{error.filename or folder}: {error.strerror}")
    for path in folders:
        try:
            if path.is_dir() and is_running(path):
                running.append(path.name)
        except OSError as error:
            problems.append(f"{error.filename or path}: {error.strerror}")
    for problem in problems:
        remedy = "correct its type, owner and permissions, or delete it"
        yield _warning("daemon", f"{problem}; {remedy}")
    if running:
        names = ", ".join(name.partition("@")[0] or "no machine id" for name in sorted(running))
        yield _passed("daemon", f"runs ({names})")
    elif not problems:
        text = "none of this account runs; not needed for `dora run`, otherwise start one: dora up"
        yield _warning("daemon", text)


def checks_of_plugins() -> Iterator[Finding]:
    """Run the checks that plug-ins add; `check_plugins` reports those that cannot be imported."""
    from dora_config import plugins
    from dora_config.plugins import PluginError

    for addition in plugins.installed().additions("dora.checks"):
        with suppress(PluginError):
            check: Callable[[], Iterable[Finding]] = addition.load()
            try:
                with addition.blamed("check this computer"):
                    findings = [*check()]
            except PluginError as error:
                yield _warning("plug-ins", str(error))
            else:
                yield from findings


def check_dataflow(path: Path) -> Iterator[Finding]:
    """Check a dataflow file; every problem is a finding."""
    from dora_config.dataflow.loader import load_dataflow
    from dora_config.errors import ConfigError

    if not path.is_file():
        yield _failure("dataflow", f"{path} does not exist")
        return
    try:
        loaded = load_dataflow(path, check_paths=True)
    except ConfigError as error:
        for problem in error.problems:
            verdict: CheckResult = "FAIL" if problem.severity == "error" else "WARN"
            yield Finding(verdict, "dataflow", str(problem))
        return
    for problem in loaded.warnings:
        yield _warning("dataflow", str(problem))
    yield _passed("dataflow", f"{path}: {len(loaded.resolved.nodes)} nodes")
