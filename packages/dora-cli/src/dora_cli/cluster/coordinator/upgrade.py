"""The coordinator of a cluster in another version: its process is replaced, its store copied."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.cluster.coordinator import local as coordinator_here
from dora_cli.cluster.coordinator import service as coordinator_service
from dora_cli.cluster.coordinator.process import (
    MODULE,
    CoordinatorProcess,
    DoesNotEnd,
    end_process,
    find_process,
    wait_for_end,
)
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.decisions.rollback_plan import Versions
from dora_cli.coordinator import background
from dora_config import DoraError
from dora_config.access import private_dir, write_private
from dora_config.cluster.models import Cluster
from dora_config.spawn_argv import run_module

START_TIMEOUT = 20.0
KEPT_COPIES = 3
_ASK_VERSION = "from dora_coordinator._version import __version__; print(__version__)"


@dataclass(frozen=True, slots=True)
class _Program:
    """A version of the coordinator's program, and how it is started."""

    version: str
    words: tuple[str, ...]
    """Without the coordinator's own arguments."""
    variables: dict[str, str]
    """Those of Python, PYTHONPATH and its like."""

    def there(self) -> str:
        """The version that it would be now; empty when it does not run any more."""
        command = [self.words[0], "-c", _ASK_VERSION]
        environ = _with_python(os.environ, self.variables)
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=30, check=True
            )
            return done.stdout.strip()
        return ""


def upgrade_coordinator(cluster: Cluster, installer: Installer, version: str) -> bool:
    """Have it run ``version``, which is ours; whether it was replaced for that.

    NotReady when that does not work; then it is as it was.
    """
    report = coordinator_here.report(cluster)
    old = report.coordinator.release if report is not None else ""
    if old == version:
        return False
    address = coordinator_here.where(cluster)
    with coordinator_service.installed(cluster) as service:
        if service is not None:
            output.write(f"Upgrading the coordinator on {address}...")
            coordinator_service.upgrade(service, installer, old, version)
            return True
    process = find_process(cluster)
    if process is None:
        output.warn(
            f"the coordinator at {address} is dora {old} and no process of this account here: "
            f"upgrade it to {version} where it runs"
        )
        return False
    if not Path(process.directory).is_dir():
        raise NotReady(
            f"the coordinator (process {process.pid}) runs in {process.directory}, which is gone, "
            "so no other can take its place: end it, and start one with `dora cluster up`"
        )
    output.write(f"Upgrading the coordinator on {address}...")
    variables = {name: text for name, text in os.environ.items() if name.startswith("PYTHON")}
    _change(cluster, process, old, _Program(version, run_module(MODULE), variables))
    return True


def coordinator_versions(cluster: Cluster) -> Versions | None:
    """The version that runs, and the one that an upgrade from here replaced; None: none answers."""
    report = coordinator_here.report(cluster)
    if report is None:
        return None
    now = report.coordinator.release
    with coordinator_service.installed(cluster) as service:
        if service is not None:
            return coordinator_service.versions(service, now)
    process = find_process(cluster)
    before = _recorded(process, cluster) if process is not None else None
    if before is None:
        return Versions(now, there=(now,))
    if before.version == now:
        return Versions(now, returned=True, there=(now,))
    return Versions(now, before.version, there=(now, before.version))


def roll_back_coordinator(cluster: Cluster) -> bool:
    """Have it run the version that an upgrade replaced, from where that one was started then.

    Whether that was done; why not is said. NotReady when it fails; then it is as it was.
    """
    report = coordinator_here.report(cluster)
    now = report.coordinator.release if report is not None else ""
    address = coordinator_here.where(cluster)
    with coordinator_service.installed(cluster) as service:
        if service is not None:
            output.write(f"Rolling back the coordinator on {address}...")
            return coordinator_service.roll_back(service, now)
    process = find_process(cluster)
    before = _recorded(process, cluster) if process is not None else None
    if before is None or before.version == now:
        output.remark(
            f"The coordinator on {address} stays as it is, dora {now}: no upgrade was made from "
            "here that could be taken back"
        )
        return False
    assert process is not None
    if (there := before.there()) != before.version:
        found = f"is dora {there} now" if there else "is not there any more"
        output.warn(
            f"the coordinator on {address} stays dora {now}: {before.words[0]}, which ran "
            f"{before.version}, {found}; to return it as well, install dora {before.version} here "
            "and run `dora cluster upgrade` with that"
        )
        return False
    output.write(f"Rolling back the coordinator on {address}...")
    _change(cluster, process, now, before, back=True)
    return True


def _change(
    cluster: Cluster,
    process: CoordinatorProcess,
    old: str,
    program: _Program,
    *,
    back: bool = False,
) -> None:
    """Another version in its place. After a way ``back`` the record names what runs: the next
    rollback does not lead forward again.
    """
    copy = _replace(cluster, process, old, program)
    _record(process, cluster, program.version if back else old)
    output.write(
        f"  dora {old} -> {program.version}... OK" + (f" (store copied to {copy})" if copy else "")
    )


def _record_path(process: CoordinatorProcess, cluster: Cluster) -> Path:
    return process.state / "coordinator" / f"before-{cluster.coordinator.port}.json"


def _record(process: CoordinatorProcess, cluster: Cluster, version: str) -> None:
    """How to start what was replaced: for a rollback. Without it none is possible, that is all."""
    record = {"version": version, "words": process.program, "variables": process.python_variables}
    path = _record_path(process, cluster)
    with suppress(OSError):
        private_dir(path.parent)
        write_private(path, json.dumps(record).encode())


def _recorded(process: CoordinatorProcess, cluster: Cluster) -> _Program | None:
    try:
        record = json.loads(_record_path(process, cluster).read_bytes())
        return _Program(record["version"], tuple(record["words"]), dict(record["variables"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _replace(
    cluster: Cluster, process: CoordinatorProcess, old: str, program: _Program
) -> Path | None:
    """Another version in the place of the process, as which it starts; the store's copy."""
    version = program.version
    copy = started = None
    try:
        end_process(process)
        copy = _copy_store(process, old)
        started = background.start(
            "coordinator",
            [*program.words, *process.arguments],
            directory=process.directory,
            environ=_with_python(process.environ, program.variables),
        )
        started.wait_until(lambda: _runs(cluster, version), within=START_TIMEOUT)
    except DoesNotEnd:
        raise
    except BaseException as problem:
        if started is not None:
            started.end()
        said = f"the old one, {old}, {_start_again(process, copy if started else None)}"
        if isinstance(problem, DoraError | OSError | sqlite3.Error):
            raise NotReady(
                f"dora {version} could not take over the coordinator; {said}: {problem}"
            ) from problem
        output.warn(f"the coordinator was not replaced; {said}")  # Ctrl-C
        raise
    return copy


def _with_python(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """An environment for a Python; what tells another one where its packages are stays out."""
    kept = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    return {**kept, **variables}


def _runs(cluster: Cluster, version: str) -> bool:
    report = coordinator_here.report(cluster)
    return report is not None and report.coordinator.release == version


def _copy_store(process: CoordinatorProcess, old: str) -> Path | None:
    """A copy of the store beside it, named after the version that wrote it."""
    store = process.store
    if store is None or not store.exists():
        return None
    copy = store.with_name(f"{store.name}.of-{old}")
    fresh = copy.with_name(f".{copy.name}.new")
    fresh.unlink(missing_ok=True)
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(fresh)) as target:
        source.backup(target)
    fresh.chmod(0o600)
    fresh.replace(copy)
    copies = sorted(store.parent.glob(f"{store.name}.of-*"), key=lambda path: path.stat().st_mtime)
    for path in copies[:-KEPT_COPIES]:
        path.unlink()
    return copy


def _start_again(process: CoordinatorProcess, copy: Path | None) -> str:
    """The old version with the store as it was (``copy``; ``None``: nobody has touched it).

    What became of it, as the end of a sentence.
    """
    remark = ""
    try:
        wait_for_end(process)  # it may have been interrupted
        if copy is not None:
            remark = _put_back(process, copy)
        with _log(process) as log:
            subprocess.Popen(
                process.words,
                cwd=process.directory,
                env=process.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except (DoesNotEnd, OSError) as problem:
        return f"could not be started again ({problem}); start one with `dora cluster up`"
    return f"is started again{remark}"


def _put_back(process: CoordinatorProcess, copy: Path) -> str:
    """The store as it was. Without that the old one may still do: a remark, not an error."""
    store = process.store
    assert store is not None, "a copy is of a store"
    fresh = store.with_name(f".{store.name}.new")
    try:
        shutil.copyfile(copy, fresh)
        fresh.chmod(0o600)
        for part in (f"{store.name}-wal", f"{store.name}-shm"):
            store.with_name(part).unlink(missing_ok=True)
        fresh.replace(store)
    except OSError as problem:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        return f", with what the new one left in its store ({problem}; as it was: {copy})"
    return ""


def _log(process: CoordinatorProcess) -> IO[bytes]:
    """Where it printed to; nowhere when there is no such file and none can be made."""
    try:
        folder = private_dir(private_dir(process.state) / "log")
        return (folder / "coordinator.log").open("ab")
    except OSError:
        return open(os.devnull, "ab")
