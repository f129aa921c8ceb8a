"""The coordinator of a cluster in another version: its process is replaced, its store copied."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from dora_cli import background, output
from dora_cli.cluster import coordinator_here
from dora_cli.cluster.preflight import NotReady
from dora_config.access import state_dir
from dora_config.cluster import Cluster

END_TIMEOUT = 20.0
START_TIMEOUT = 20.0
KEPT_COPIES = 3
_MODULE = "dora_coordinator.command"


@dataclass(frozen=True, slots=True)
class _Process:
    """The coordinator that runs here: its whole command line, and what follows the command."""

    pid: int
    words: tuple[str, ...]
    arguments: tuple[str, ...]
    directory: str
    environ: dict[str, str]

    @property
    def store(self) -> Path | None:
        """The file of its store; ``None``: in memory."""
        chosen = "redb"
        for word, following in zip(self.arguments, (*self.arguments[1:], ""), strict=True):
            if word == "--store":
                chosen = following
            elif word.startswith("--store="):
                chosen = word.partition("=")[2]
        kind, _, path = chosen.partition(":")
        if kind == "memory":
            return None
        return Path(path) if path else state_dir(self.environ) / "coordinator" / "store.sqlite3"


def upgrade_coordinator(cluster: Cluster, version: str) -> bool:
    """Have it run ``version``, which is ours; whether it was replaced for that.

    NotReady when that does not work; then it is as it was.
    """
    report = coordinator_here.report(cluster)
    old = report.coordinator.release if report is not None else ""
    if old == version:
        return False
    address = coordinator_here.where(cluster)
    process = _find(cluster)
    if process is None:
        output.warn(
            f"the coordinator at {address} is dora {old} and no process of this account here: "
            f"upgrade it to {version} where it runs"
        )
        return False
    output.write(f"Upgrading the coordinator on {address}...")
    copy = started = None
    _end(process)
    try:
        copy = _copy_store(process, old)
        started = background.start("coordinator", _MODULE, process.arguments)
        started.wait_until(lambda: _runs(cluster, version), within=START_TIMEOUT)
    except (background.NotStarted, OSError, sqlite3.Error) as problem:
        if started is not None:
            started.process.kill()
            started.process.wait()
        _start_again(process, copy)
        raise NotReady(
            f"dora {version} could not take over the coordinator, which is started as {old} again: "
            f"{problem}"
        ) from problem
    output.write(
        f"  dora {old} -> {version}... OK" + (f" (store copied to {copy})" if copy else "")
    )
    return True


def _runs(cluster: Cluster, version: str) -> bool:
    report = coordinator_here.report(cluster)
    return report is not None and report.coordinator.release == version


def _find(cluster: Cluster) -> _Process | None:
    """The process that listens at the coordinator's port, if it is ours."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for one in connections:
        port = one.laddr.port if one.laddr else None
        if one.status != psutil.CONN_LISTEN or port != cluster.coordinator.port or not one.pid:
            continue
        with suppress(psutil.Error):
            process = psutil.Process(one.pid)
            words = process.cmdline()
            arguments = _arguments(words)
            if arguments is not None and process.uids().real == os.getuid():
                return _Process(one.pid, tuple(words), arguments, process.cwd(), process.environ())
    return None


def _arguments(words: Sequence[str]) -> tuple[str, ...] | None:
    """What follows the command; ``None`` for a process that is no coordinator."""
    for number, word in enumerate(words):
        if word == _MODULE or (word == "coordinator" and number > 0):
            return tuple(words[number + 1 :])
    return None


def _end(process: _Process) -> None:
    """Its nodes and daemons go on; SIGTERM does that."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + END_TIMEOUT
    while psutil.pid_exists(process.pid) and not _is_zombie(process.pid):
        if time.monotonic() > deadline:
            raise NotReady(f"the coordinator (process {process.pid}) does not end")
        time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _copy_store(process: _Process, old: str) -> Path | None:
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


def _start_again(process: _Process, copy: Path | None) -> None:
    """The old version with the store as it was."""
    store = process.store
    if copy is not None and store is not None:
        for part in (f"{store.name}-wal", f"{store.name}-shm"):
            store.with_name(part).unlink(missing_ok=True)
        shutil.copyfile(copy, store)
    log = state_dir(process.environ) / "log" / "coordinator.log"
    with log.open("ab") as file:
        subprocess.Popen(
            process.words,
            cwd=process.directory,
            env=process.environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
