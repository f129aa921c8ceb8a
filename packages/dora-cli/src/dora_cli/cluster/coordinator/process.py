"""The process of a coordinator that this account has started on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from dora_cli.cluster.decisions.preflight import NotReady
from dora_config.access import state_dir
from dora_config.cluster.models import Cluster

END_TIMEOUT = 20.0
MODULE = "dora_coordinator.command"


class DoesNotEnd(NotReady):
    """The old coordinator runs on, for now."""


@dataclass(frozen=True, slots=True)
class CoordinatorProcess:
    """The coordinator that runs here: its whole command line, and what follows the command."""

    pid: int
    words: tuple[str, ...]
    arguments: tuple[str, ...]
    directory: str
    environ: dict[str, str]

    @property
    def program(self) -> tuple[str, ...]:
        """The words before its arguments."""
        return self.words[: len(self.words) - len(self.arguments)]

    @property
    def python_variables(self) -> dict[str, str]:
        """What tells its Python where its packages are."""
        return {name: text for name, text in self.environ.items() if name.startswith("PYTHON")}

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
        if path:
            return Path(self.directory) / Path(path).expanduser()
        return self.state / "coordinator" / "store.sqlite3"

    @property
    def state(self) -> Path:
        """Its state folder."""
        return Path(self.directory) / state_dir(self.environ)


def find_process(cluster: Cluster) -> CoordinatorProcess | None:
    """The process that listens at the coordinator's address, if it is ours."""
    address, port = cluster.coordinator.addr, cluster.coordinator.port
    places = [(host, port) for host in (address.partition("%")[0], "0.0.0.0", "::")]
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for one in connections:
        if one.status != psutil.CONN_LISTEN or not one.pid or one.laddr not in places:
            continue
        with suppress(psutil.Error):
            process = psutil.Process(one.pid)
            words = process.cmdline()
            arguments = _arguments(words)
            if arguments is not None and process.uids().real == os.getuid():
                return CoordinatorProcess(
                    one.pid, tuple(words), arguments, process.cwd(), process.environ()
                )
    return None


def _arguments(words: Sequence[str]) -> tuple[str, ...] | None:
    """What follows the command; ``None`` for a process that is no coordinator."""
    for number, word in enumerate(words):
        if word == MODULE or (word == "coordinator" and number > 0):
            return tuple(words[number + 1 :])
    return None


def end_process(process: CoordinatorProcess) -> None:
    """Its nodes and daemons go on; SIGTERM does that."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    wait_for_end(process)


def wait_for_end(process: CoordinatorProcess) -> None:
    deadline = time.monotonic() + END_TIMEOUT
    while psutil.pid_exists(process.pid) and not _is_zombie(process.pid):
        if time.monotonic() > deadline:
            raise DoesNotEnd(
                f"the coordinator (process {process.pid}) was told to end and does not; nothing "
                "was started in its place: when it has ended, do that with `dora cluster up`"
            )
        time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
