"""The coordinator's process is replaced by one of our version, or is there again as it was."""

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
from support.coordinator import free_port
from support.waiting import wait_until

from dora_cli.cluster.coordinator import local as coordinator_here
from dora_config.cluster.models import Cluster, Coordinator
from dora_coordinator._version import __version__

pytestmark = pytest.mark.integration

OLD = "0.0.9"
PROGRAM = f"""
import sys
from dora_coordinator import command
command.__version__ = "{OLD}"
sys.exit(command.main(sys.argv[2:]))
"""

UPGRADE = f"""
import sys
from dora_cli.bundle.install import Installer
from dora_cli.cluster.coordinator import process as coordinator_process
from dora_cli.cluster.coordinator import upgrade as coordinator_upgrade
from dora_config.cluster.models import Cluster, Coordinator

port, step, problem, there = sys.argv[1:]
coordinator_upgrade._Program.there = lambda program: there
problems = [KeyboardInterrupt() if problem == "interrupted" else PermissionError(13, "no")]

if step:
    place = coordinator_process if step == "wait_for_end" else coordinator_upgrade
    work = getattr(place, step)

    def fail_once(*words):
        if problems:
            raise problems.pop()
        return work(*words)

    setattr(place, step, fail_once)

cluster = Cluster(coordinator=Coordinator(addr="127.0.0.1", port=int(port)), machines=())
try:
    if there:
        print(coordinator_upgrade.roll_back_coordinator(cluster))
    else:
        print(coordinator_upgrade.upgrade_coordinator(cluster, Installer(), "{__version__}"))
except BaseException as error:
    print(type(error).__name__, error)
"""


def roll_back(cluster: Cluster, there: str = OLD) -> str:
    """``there``: what the old program is now."""
    return upgrade(cluster, there=there)


def upgrade(cluster: Cluster, step: str = "", problem: str = "", there: str = "") -> str:
    """In a process of its own, as a command has; ``problem`` is met once at ``step``."""
    words = [str(cluster.coordinator.port), step, problem, there]
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def release(cluster: Cluster) -> str | None:
    report = coordinator_here.report(cluster)
    return report.coordinator.release if report is not None else None


def process_at(cluster: Cluster) -> psutil.Process:
    """Who listens at the coordinator's port."""
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
    """It runs in ``folder`` with a store and a state folder that are named from there."""
    cluster = Cluster(coordinator=Coordinator(addr="127.0.0.1", port=free_port()), machines=())
    words = ["coordinator", "--port", str(cluster.coordinator.port), "--store", "redb:its.store"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": "its-state"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: release(cluster) == OLD, what="the old coordinator")
        yield cluster
    finally:
        coordinator_here.end(cluster)
        process.kill()
        process.wait()


def test_the_new_one_has_folder_environment_and_store_of_the_old_one(tmp_path: Path) -> None:
    with old_coordinator(tmp_path) as cluster:
        before = process_at(cluster)
        said = upgrade(cluster)
        assert said.endswith("True\n"), said
        assert release(cluster) == __version__
        after = process_at(cluster)
        assert after.pid != before.pid
        assert after.cwd() == str(tmp_path)
        assert after.environ()["XDG_STATE_HOME"] == "its-state"
        assert (tmp_path / f"its.store.of-{OLD}").stat().st_mode & 0o777 == 0o600
        assert "its.store" in (tmp_path / "its-state/dora/log/coordinator.log").read_text()
        assert upgrade(cluster) == "False\n"


def test_a_rollback_starts_what_ran_before(tmp_path: Path) -> None:
    with old_coordinator(tmp_path) as cluster:
        said = roll_back(cluster)
        assert f"stays as it is, dora {OLD}: no upgrade was made" in said
        upgrade(cluster)
        said = roll_back(cluster, there="0.7.0")
        assert f"stays dora {__version__}: " in said
        assert f"which ran {OLD}, is dora 0.7.0 now; to return it" in said
        assert said.startswith("False\n")
        assert f"  dora {__version__} -> {OLD}... OK" in roll_back(cluster)
        assert release(cluster) == OLD
        again = process_at(cluster)
        assert again.cwd() == str(tmp_path)
        assert again.environ()["XDG_STATE_HOME"] == "its-state"
        said = roll_back(cluster, there=__version__)
        assert f"stays as it is, dora {OLD}: no upgrade was made" in said
        assert release(cluster) == OLD


@pytest.mark.parametrize("step", ["wait_for_end", "_copy_store", "_runs"])
@pytest.mark.parametrize("problem", ["interrupted", "refused"])
def test_whatever_fails_the_old_one_is_there_again(tmp_path: Path, step: str, problem: str) -> None:
    with old_coordinator(tmp_path) as cluster:
        shutil.rmtree(tmp_path / "its-state/dora/log", ignore_errors=True)
        said = upgrade(cluster, step, problem)
        assert ("KeyboardInterrupt" if problem == "interrupted" else "NotReady") in said
        assert f"the old one, {OLD}, is started again" in said
        wait_until(lambda: release(cluster) == OLD, what="the old coordinator again")
        assert process_at(cluster).cwd() == str(tmp_path)
        assert (tmp_path / "its-state/dora/log/coordinator.log").exists()


def test_a_folder_that_is_gone_is_said_before_anything_ends(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with old_coordinator(folder) as cluster:
        before = process_at(cluster)
        shutil.rmtree(folder)
        assert f"runs in {folder}, which is gone" in upgrade(cluster)
        assert before.is_running()
