"""Replaces the process of a coordinator by another version, and restarts it if that fails."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dora_cli import output
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.local import PRINT_VERSION
from dora_cli.cluster.coordinator.process import (
    CoordinatorProcess,
    DoesNotEnd,
    end_process,
    wait_for_end,
)
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.coordinator import background
from dora_cli.remote_program.store_copies import copy_store, restore_store
from dora_config import DoraError
from dora_config.access import private_dir, write_private
from dora_config.cluster.models import Cluster

START_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class CoordinatorProgram:
    """A version of the coordinator's program and how to start it."""

    version: str
    words: tuple[str, ...]
    """Without the coordinator's arguments."""
    variables: dict[str, str]
    """Variables of Python, such as PYTHONPATH."""

    def present_version(self) -> str:
        """Return the version that it starts now; empty if it does not run any more."""
        return self.printed(PRINT_VERSION)

    def printed(self, statements: str) -> str:
        """Return what its Python prints; empty if that fails."""
        command = [self.words[0], "-c", statements]
        environ = _with_python_variables(os.environ, self.variables)
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=30, check=True
            )
            return done.stdout.strip()
        return ""


def replace_process(
    cluster: Cluster,
    process: CoordinatorProcess,
    old: str,
    program: CoordinatorProgram,
    *,
    rollback: bool = False,
) -> None:
    """Start ``program`` in place of the process; raises NotReady with the old one running.

    After a rollback the record names the running version, so that the next rollback has nothing
    to undo.
    """
    copy = _replace(cluster, process, old, program)
    _write_record(process, cluster, program.version if rollback else old)
    remark = f" (store copied to {copy})" if copy else ""
    output.write(f"  dora {old} -> {program.version}... OK{remark}")


def replaced_program(process: CoordinatorProcess, cluster: Cluster) -> CoordinatorProgram | None:
    """Return the program that the last upgrade or rollback recorded."""
    try:
        record = json.loads(_record_path(process, cluster).read_bytes())
        words, variables = tuple(record["words"]), dict(record["variables"])
        return CoordinatorProgram(record["version"], words, variables)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(process: CoordinatorProcess, cluster: Cluster, version: str) -> None:
    """Record the replaced program for a rollback; a rollback requires the record."""
    record = {"version": version, "words": process.program, "variables": process.python_variables}
    path = _record_path(process, cluster)
    with suppress(OSError):
        private_dir(path.parent)
        write_private(path, json.dumps(record).encode())


def _record_path(process: CoordinatorProcess, cluster: Cluster) -> Path:
    return process.state / "coordinator" / f"before-{cluster.coordinator.port}.json"


def _replace(
    cluster: Cluster, process: CoordinatorProcess, old: str, program: CoordinatorProgram
) -> Path | None:
    """Replace the process; return the copy of its store."""
    version = program.version
    copy = started = None
    try:
        end_process(process)
        copy = None if process.store is None else copy_store(process.store, old)
        started = background.start(
            "coordinator",
            [*program.words, *process.arguments],
            directory=process.directory,
            environ=_with_python_variables(process.environ, program.variables),
        )
        started.wait_until(lambda: queries.release_of(cluster) == version, within=START_TIMEOUT)
    except DoesNotEnd:
        raise
    except BaseException as problem:
        if started is not None:
            started.end()
        outcome = f"the old one, {old}, {_start_again(process, copy if started else None)}"
        if isinstance(problem, DoraError | OSError | sqlite3.Error):
            raise NotReady(
                f"dora {version} could not replace the coordinator; {outcome}: {problem}"
            ) from problem
        output.warn(f"the coordinator was not replaced; {outcome}")  # Ctrl-C
        raise
    return copy


def _with_python_variables(
    environ: Mapping[str, str], variables: Mapping[str, str]
) -> dict[str, str]:
    """Return an environment with the Python variables of another installation."""
    kept = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    return {**kept, **variables}


def _start_again(process: CoordinatorProcess, copy: Path | None) -> str:
    """Start the old version with ``copy`` as its store (None: the store is unchanged).

    Return what happened, as the end of a sentence.
    """
    remark = ""
    try:
        wait_for_end(process)  # the first wait may have been interrupted
        if copy is not None:
            remark = _restore_store(process, copy)
        with _open_log(process) as log:
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
        return f"could not be started again ({problem}); start it with `dora cluster up`"
    return f"is started again{remark}"


def _restore_store(process: CoordinatorProcess, copy: Path) -> str:
    """Restore the store; return a remark if that failed, since the old version may still run."""
    assert process.store is not None, "a copy is of a store"
    try:
        restore_store(process.store, copy)
    except OSError as problem:
        return f", with the store of the new version ({problem}; its own store: {copy})"
    return ""


def _open_log(process: CoordinatorProcess) -> IO[bytes]:
    """Open its log, or /dev/null if that is not possible."""
    try:
        folder = private_dir(private_dir(process.state) / "log")
        return (folder / "coordinator.log").open("ab")
    except OSError:
        return open(os.devnull, "ab")
