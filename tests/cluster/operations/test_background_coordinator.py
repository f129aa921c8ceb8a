"""Upgrades and rollbacks of a real coordinator process, also with a failure in each step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.fleets.coordinator import free_port
from support.waiting import wait_until

from dora_cluster.coordinator import queries
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_coordinator._version import __version__

pytestmark = pytest.mark.integration

OLD = "0.0.9"
PROGRAM = f"""
import sys
from dora_coordinator import command
command.__version__ = "{OLD}"
sys.exit(command.main(sys.argv[2:]))
"""

COMMAND = """
import sys
from dora_cluster.bundle.install import Installer
from dora_cluster.coordinator import local
from dora_cluster.operations.coordinator_switch import (
    BackgroundCoordinator,
    roll_back_coordinator,
    upgrade_coordinator,
)
from dora_cli.coordinator import background
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_coordinator._version import __version__

port, step, problem, present = sys.argv[1:]
Installer.version = __version__
if present:
    BackgroundCoordinator.present_version = lambda self, program: present
problems = [KeyboardInterrupt() if problem == "interrupted" else PermissionError(13, "no")]
places = {
    "end": (local, "wait_for_end"),
    "start": (background, "start"),
    "wait": (background.BackgroundProcess, "wait_until"),
}

if step:
    place, name = places[step]
    work = getattr(place, name)

    def fail_once(*words, **options):
        if problems:
            raise problems.pop()
        return work(*words, **options)

    setattr(place, name, fail_once)

cluster = Cluster(
    coordinator=Coordinator(addr="127.0.0.1", port=int(port)),
    machines=(Machine(id="robot", host="10.0.0.9"),),
)
try:
    if present:
        print(roll_back_coordinator(cluster))
    else:
        print(upgrade_coordinator(cluster, Installer()))
except BaseException as error:
    print(type(error).__name__, error)
"""


def roll_back(cluster: Cluster, present: str = OLD) -> str:
    """``present``: the version that the replaced program has now."""
    return upgrade(cluster, present=present)


def upgrade(cluster: Cluster, step: str = "", problem: str = "", present: str = "") -> str:
    """Run the command in its own process, with ``problem`` once at ``step``; return its output."""
    words = [str(cluster.coordinator.port), step, problem, present]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def process_at(cluster: Cluster) -> psutil.Process:
    """The process that listens at the coordinator's port."""
    (pid,) = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
        and one.laddr
        and one.laddr.port == cluster.coordinator.port
    }
    return psutil.Process(pid)


@contextmanager
def old_coordinator(folder: Path) -> Iterator[Cluster]:
    """A coordinator that runs in ``folder``; its store and state folder have relative paths."""
    cluster = Cluster(
        coordinator=Coordinator(addr="127.0.0.1", port=free_port()),
        machines=(Machine(id="robot", host="10.0.0.9"),),
    )
    words = ["coordinator", "--port", str(cluster.coordinator.port), "--store", "redb:its.store"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": "its-state"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: queries.release_of(cluster) == OLD, what="the old coordinator")
        yield cluster
    finally:
        queries.destroy(cluster)
        process.kill()
        process.wait()


def test_new_process_has_folder_environment_and_store_of_the_old_one(tmp_path: Path) -> None:
    with old_coordinator(tmp_path) as cluster:
        before = process_at(cluster)
        printed = upgrade(cluster)
        assert printed.endswith("True\n"), printed
        assert queries.release_of(cluster) == __version__
        after = process_at(cluster)
        assert after.pid != before.pid
        assert after.cwd() == str(tmp_path)
        assert after.environ()["XDG_STATE_HOME"] == "its-state"
        assert (tmp_path / f"its.store.of-{OLD}").stat().st_mode & 0o777 == 0o600
        assert "its.store" in (tmp_path / "its-state/dora/log/coordinator.log").read_text()
        assert upgrade(cluster) == "False\n"


def test_rollback_starts_the_replaced_program(tmp_path: Path) -> None:
    with old_coordinator(tmp_path) as cluster:
        assert f"stays at dora {OLD}: it has no upgrade" in roll_back(cluster)
        upgrade(cluster)
        printed = roll_back(cluster, present="0.7.0")
        assert f"stays at dora {__version__}: " in printed
        assert f"which was {OLD}, is dora 0.7.0 now; to return it" in printed
        assert printed.startswith("False\n")
        assert f"  dora {__version__} -> {OLD}... OK" in roll_back(cluster)
        assert queries.release_of(cluster) == OLD
        again = process_at(cluster)
        assert again.cwd() == str(tmp_path)
        assert again.environ()["XDG_STATE_HOME"] == "its-state"
        printed = roll_back(cluster, present=__version__)
        assert f"stays at dora {OLD}: it has no upgrade" in printed
        assert queries.release_of(cluster) == OLD


@pytest.mark.parametrize("step", ["end", "start", "wait"])
@pytest.mark.parametrize("problem", ["interrupted", "refused"])
def test_failure_starts_the_old_coordinator_again(tmp_path: Path, step: str, problem: str) -> None:
    with old_coordinator(tmp_path) as cluster:
        shutil.rmtree(tmp_path / "its-state/dora/log", ignore_errors=True)
        printed = upgrade(cluster, step, problem)
        assert ("KeyboardInterrupt" if problem == "interrupted" else "NotReady") in printed
        assert f"Return to {OLD}... OK" in printed
        wait_until(lambda: queries.release_of(cluster) == OLD, what="the old coordinator again")
        assert process_at(cluster).cwd() == str(tmp_path)
        assert (tmp_path / "its-state/dora/log/coordinator.log").exists()


def test_coordinator_of_a_removed_folder_is_not_ended(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with old_coordinator(folder) as cluster:
        before = process_at(cluster)
        shutil.rmtree(folder)
        assert f"runs in {folder}, which does not exist any more" in upgrade(cluster)
        assert before.is_running()
