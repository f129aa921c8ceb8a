"""Records of successful builds, so that a build with unchanged inputs is skipped.

`<working dir>/.dora/builds/` has a record for each command: its environment, the files that it
could read and the installed packages, after all nodes were built. A file that existed before the
build and changed meanwhile was edited by the user, unless builds of this command always change it;
then the next build runs.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from dora_config.atomic_write import write_file
from dora_daemon.build.inputs import BuildInputs, inputs_of, normalized
from dora_daemon.build.plan import BuildLine
from dora_daemon.build.snapshot import (
    State,
    difference,
    environment_state,
    file_state,
    site_directories,
)

_VERSION = 1
_OF_A_SESSION = (
    "TERM", "COLORTERM", "PWD", "OLDPWD", "SHLVL", "_", "WINDOWID", "DISPLAY", "WAYLAND_DISPLAY",
    "XAUTHORITY", "COLUMNS", "LINES", "LS_COLORS", "PS1", "STY", "GPG_TTY", "INVOCATION_ID",
    "JOURNAL_STREAM", "MAIL", "NO_COLOR", "EDITOR", "PAGER", "LESS", "PYTEST_CURRENT_TEST",
)  # fmt: skip
_OF_A_SESSION_PREFIXES = ("SSH_", "XDG_SESSION", "DBUS_", "TMUX", "TERM_", "VSCODE_", "DORA_")


@dataclass(slots=True)
class CachedBuild:
    """Inputs of one node's build, and whether the result of the last one is up to date."""

    record: Path
    inputs: BuildInputs | None
    python: Path | None
    environ: str
    left_out: tuple[Path, ...]
    last: Mapping[str, Any]
    before: State | None
    up_to_date: bool = False
    touched: set[str] = field(default_factory=set)
    """Distributions that the build has changed."""
    installed: State | None = None
    """Installed packages after the build; None if it was skipped."""


class BuildCache:
    """The records of one call of `prepare`; methods may run in several threads."""

    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir
        self._checks: list[CachedBuild] = []
        self._running: dict[Path | None, int] = {}
        self._lock = threading.Lock()

    def check(
        self,
        lines: tuple[BuildLine, ...],
        directory: Path,
        *,
        python: Path | None,
        environ: Mapping[str, str],
        uv: str | None,
    ) -> CachedBuild:
        """Compare a build with its last success; `python` None: it installs for dora's Python."""
        command = [[line.text for line in lines], str(directory), uv is not None, str(python)]
        name = hashlib.sha256(json.dumps(command).encode()).hexdigest()[:32]
        record = directory / ".dora" / "builds" / f"{name}.json"
        inputs = inputs_of(lines, directory)
        base = self._base_dir
        left_out = (base / "out", base / "git", directory / "out")
        before = None if inputs is None else file_state(inputs.roots, left_out)
        check = CachedBuild(
            record, inputs, python, _environ_mark(environ, python), left_out, _load(record), before
        )
        check.up_to_date = self._holds(check)
        if check.up_to_date:
            check.touched = set(check.last["own"])
            self._checks.append(check)
        return check

    def _holds(self, check: CachedBuild) -> bool:
        last = check.last
        if check.inputs is None or check.before is None or not last.get("success"):
            return False
        if last["environ"] != check.environ or last["files"] != check.before:
            return False
        if self._running.get(check.python):
            return False  # another build is changing the environment
        installed = environment_state(check.python)
        changed = difference(last["installed"], installed)
        if changed and not _leaves_alone(changed, check):
            return False
        return _is_complete(installed, set(last["own"]))

    def begin(self, check: CachedBuild) -> State:
        """Record that the build runs; return the installed packages."""
        outputs = set(check.last.get("outputs", ()))
        _store(check.record, {"version": _VERSION, "success": False, "outputs": sorted(outputs)})
        with self._lock:
            self._running[check.python] = self._running.get(check.python, 0) + 1
        return environment_state(check.python)

    def end(self, check: CachedBuild, installed: State, *, success: bool) -> None:
        """Record the end of the build; `installed` is the result of `begin`."""
        with self._lock:
            self._running[check.python] -= 1
        if success:
            check.installed = environment_state(check.python)
            changed = difference(installed, check.installed)
            check.touched = set(filter(None, map(_distribution, changed)))
            self._checks.append(check)

    def save(self, *, complete: bool) -> None:
        """Store the builds that succeeded; `complete`: all of this call did.

        Later builds may install into the same environment, so the state after all of them is
        stored, or after a failure the state after each single build.
        """
        installed: dict[Path | None, State] = {}
        for check in self._checks:
            if check.inputs is None or (not complete and check.installed is None):
                continue
            after = file_state(check.inputs.roots, check.left_out)
            if check.before is None or after is None:
                continue
            if check.python not in installed:
                installed[check.python] = environment_state(check.python)
            changed = difference(check.before, after)
            known = set(check.last.get("outputs", ()))
            edited = {path for path in changed & check.before.keys() if not _made(path)} - known
            own = check.touched | check.inputs.names | _local_projects(check)
            record = {
                "version": _VERSION,
                "success": not edited,
                "environ": check.environ,
                "files": after,
                "outputs": sorted(known | changed),
                "installed": installed[check.python] if complete else check.installed,
                "own": sorted(own),
            }
            _store(check.record, record)


def _leaves_alone(changed: Iterable[str], check: CachedBuild) -> bool:
    """Return whether packages that were changed since the build do not affect it.

    This holds only for builds that install packages, if neither these packages nor the requirements
    of other distributions have changed.
    """
    described = {entry: _distribution(entry) for entry in changed}
    names = {name for name in described.values() if name is not None}
    own = set(check.last["own"])
    if check.inputs is None or not check.inputs.installs_only or not own:
        return False
    if any(name is None and _owner(entry) not in names for entry, name in described.items()):
        return False
    if names & own:
        return False
    for other in distributions(path=[str(site) for site in site_directories(check.python)]):
        if normalized(other.name) in names:
            continue
        if any(_required(text) in names for text in other.requires or ()):
            return False
    return True


def _is_complete(installed: Iterable[str], own: set[str]) -> bool:
    """Return whether all files of these distributions exist, except compiled modules."""
    for entry in installed:
        if not entry.endswith(".dist-info") or _distribution(entry) not in own:
            continue
        try:
            with (Path(entry) / "RECORD").open(newline="", errors="replace") as file:
                paths = [row[0] for row in csv.reader(file) if row]
        except (OSError, csv.Error):
            return False
        site = Path(entry).parent
        if any(not path.endswith(".pyc") and not (site / path).exists() for path in paths):
            return False
    return True


def _required(requirement: str) -> str:
    cut = min((requirement.find(c) for c in " ;<>=!~[(@" if c in requirement), default=None)
    return normalized(requirement[:cut])


def _distribution(entry: str) -> str | None:
    """Return the distribution that an entry of site-packages describes; None for other entries."""
    name = entry.rpartition("/")[2]
    if not name.endswith((".dist-info", ".egg-info")):
        return None
    return normalized(name.rpartition(".")[0].partition("-")[0])


def _owner(entry: str) -> str:
    """Return the distribution with the name of a module, program or editable install."""
    name = entry.rpartition("/")[2]
    if name.endswith(".pth"):
        name = name.removeprefix("__editable__.").partition("-")[0]
    return normalized(name.removesuffix(".pth").removesuffix(".py"))


def _local_projects(check: CachedBuild) -> set[str]:
    """Return distributions that were installed from the folders and files that the build reads."""
    assert check.inputs is not None
    urls = {root.as_uri() for root in check.inputs.roots}
    found = set()
    for one in distributions(path=[str(site) for site in site_directories(check.python)]):
        text = one.read_text("direct_url.json")
        if text and json.loads(text).get("url") in urls:
            found.add(normalized(one.name))
    return found


def _made(path: str) -> bool:
    """Return whether a file is one that builds of Python packages leave in their sources."""
    parts = Path(path).parts
    return any(part.endswith((".egg-info", ".dist-info")) for part in parts) or any(
        first == "build" and second.startswith(("lib", "bdist", "temp"))
        for first, second in itertools.pairwise(parts)
    )


def _environ_mark(environ: Mapping[str, str], python: Path | None) -> str:
    kept = {
        name: text
        for name, text in environ.items()
        if name not in _OF_A_SESSION and not name.startswith(_OF_A_SESSION_PREFIXES)
    }
    interpreter = os.path.realpath(python or sys.executable)
    facts = [sorted(kept.items()), interpreter, sys.prefix, sys.version, str(python)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _load(record: Path) -> dict[str, Any]:
    try:
        values = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) and values.get("version") == _VERSION else {}


def _store(record: Path, values: Mapping[str, Any]) -> None:
    """Replace a record atomically; an error removes it, so that the build runs again."""
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_file(record, json.dumps(values))
    except OSError:
        with suppress(OSError):
            record.unlink(missing_ok=True)
