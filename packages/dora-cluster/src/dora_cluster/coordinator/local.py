"""A coordinator that runs in the background of this machine: started, found and ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from dora_cli.coordinator import background
from dora_cli.polling import wait_until
from dora_cluster.coordinator import queries
from dora_cluster.decisions.preflight import NotReady
from dora_config.access import DEFAULT_HOST, state_dir
from dora_config.cluster.models import Cluster
from dora_config.control_plane import is_local
from dora_config.errors import DoraError
from dora_config.spawn_argv import run_module

MODULE = "dora_coordinator.command"
PRINT_VERSION = "from dora_coordinator._version import __version__; print(__version__)"
PRINT_STORE = (
    "from dora_coordinator.io.store_format import SCHEMA_VERSION; print('%d.%d' % SCHEMA_VERSION)"
)
START_TIMEOUT = 30.0
"""Seconds for a started coordinator to answer."""
END_TIMEOUT = 20.0
"""Seconds from SIGTERM to the end of the coordinator."""


class DoesNotEnd(NotReady):
    """The old coordinator still runs."""


@dataclass(frozen=True, slots=True)
class CoordinatorProcess:
    """A running coordinator with its command line and its environment."""

    pid: int
    words: tuple[str, ...]
    """The whole command line."""
    arguments: tuple[str, ...]
    """The words after the command."""
    directory: str
    environ: dict[str, str]

    @property
    def program(self) -> tuple[str, ...]:
        """The words before its arguments."""
        return self.words[: len(self.words) - len(self.arguments)]

    @property
    def python_variables(self) -> dict[str, str]:
        """The variables by which its Python finds packages."""
        return {name: text for name, text in self.environ.items() if name.startswith("PYTHON")}

    @property
    def store(self) -> Path | None:
        """The file of its store; None: in memory."""
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
        return self.default_store

    @property
    def default_store(self) -> Path:
        """The file of its store without ``--store``."""
        return self.state / "coordinator" / "store.sqlite3"

    @property
    def state(self) -> Path:
        """State folder of the coordinator."""
        return Path(self.directory) / state_dir(self.environ)


def find_process(cluster: Cluster) -> CoordinatorProcess | None:
    """Return the process of this account that listens at the coordinator's address."""
    address, port = cluster.coordinator.addr, cluster.coordinator.port
    places = [(host, port) for host in (address.partition("%")[0], "0.0.0.0", "::")]
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # the process has ended, or belongs to another account
            words = process.cmdline()
            arguments = _arguments(words)
            if arguments is not None and process.uids().real == os.getuid():
                connections = process.net_connections("tcp")
                if any(
                    one.status == psutil.CONN_LISTEN and one.laddr in places for one in connections
                ):
                    return CoordinatorProcess(
                        process.pid, tuple(words), arguments, process.cwd(), process.environ()
                    )
    return None


def _arguments(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return the words after the command; None if the process is not a coordinator."""
    for number, word in enumerate(words):
        if word == MODULE or (word == "coordinator" and number > 0):
            return tuple(words[number + 1 :])
    return None


def end_process(process: CoordinatorProcess) -> None:
    """End it with SIGTERM; daemons and nodes keep running."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    wait_for_end(process)


def wait_for_end(process: CoordinatorProcess) -> None:
    """Wait until the process has ended; raises DoesNotEnd."""
    if not wait_until(lambda: _has_ended(process.pid), END_TIMEOUT):
        raise DoesNotEnd(
            f"the coordinator (process {process.pid}) did not end within {END_TIMEOUT:g} s of "
            "SIGTERM; no other was started: when it has ended, run `dora cluster up`"
        )


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def coordinator_arguments(cluster: Cluster) -> list[str]:
    """Return the coordinator's arguments.

    It listens at its address in the file, and at loopback for the commands on its machine. The
    `check` of a roll-out in the file permits such commands.
    """
    address, rollout = cluster.coordinator.addr, cluster.rollout
    words = ["--interface", DEFAULT_HOST] if address != DEFAULT_HOST else []
    if rollout is not None and rollout.check is not None:
        words += ["--set", "fleet_checks=1"]
    return [*words, "--interface", address, "--port", str(cluster.coordinator.port)]


def start_coordinator(
    cluster: Cluster, *, recreate_store: bool = False
) -> background.BackgroundProcess:
    """Start it and wait until it answers; raises DoraError, NotStarted and CoordinatorBusy."""
    address = cluster.coordinator.addr
    if not is_local(address):
        raise DoraError(
            f"no coordinator answers at {address}, which is not an address of this machine; "
            "run this command on the machine with that address, start `dora coordinator` there, "
            "or correct coordinator.addr in the cluster file"
        )
    words = [*run_module(MODULE), *coordinator_arguments(cluster)]
    words += ["--recreate-store"] if recreate_store else []
    process = background.start("coordinator", words)
    process.wait_until(lambda: queries.report_if_running(cluster) is not None, within=START_TIMEOUT)
    background.warn_unless_exported()
    return process


def end_if_unused(cluster: Cluster, started: background.BackgroundProcess) -> bool:
    """End a coordinator that this command started, unless it has daemons or dataflows.

    Return whether it has ended. Raises CoordinatorBusy.
    """
    if started.process.poll() is not None:
        return False  # another command started the coordinator that answers
    report = queries.report_if_running(cluster)
    if report is None:
        return True
    if report.active_dataflows or any(one.connected for one in report.machines):
        return False
    queries.destroy(cluster)
    return True
