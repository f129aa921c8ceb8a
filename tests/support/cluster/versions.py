"""Session fixtures: installations of several versions, and wheels of their dependencies.

They are created once for all workers of pytest-xdist.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cluster.installation import Edits, Installation, LocalMachine, install

from dora_cluster.bundle.dependencies import Platform, download
from dora_cluster.remote_call import call


def shared_folder(
    factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]
) -> Path:
    """Return a folder that all workers share; the first one fills it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    filled = folder.with_suffix(".filled")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not filled.exists():
            folder.mkdir(exist_ok=True)
            fill(folder)
            filled.touch()
    return folder


def _version(
    factory: pytest.TempPathFactory, version: str, edits: Edits | None = None
) -> Installation:
    folder = shared_folder(
        factory, f"dora-{version}".replace(".", "-"), lambda path: install(path, version, edits)
    )
    return Installation(folder, version)


@pytest.fixture(scope="session")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return _version(tmp_path_factory, "0.1.0")


@pytest.fixture(scope="session")
def new_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return _version(tmp_path_factory, "0.2.0")


@pytest.fixture(scope="session")
def broken_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A version whose nodes cannot send, so that its self-test fails."""

    def broken(text: str) -> str:
        return text.replace("def send_output(", "def send_nothing(", 1)

    edits = {"dora-node-api/src/dora_node_api/node.py": broken}
    return _version(tmp_path_factory, "0.3.0", edits)


@pytest.fixture(scope="session")
def disconnected_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A version that passes its self-test, but whose daemon reaches no remote coordinator."""

    def disconnect(text: str) -> str:
        chosen = '"/api/daemon" if endpoint.host == "127.0.0.1" else "/api/nowhere"'
        return text.replace('endpoint, "/api/daemon"', f"endpoint, {chosen}", 1)

    edits = {"dora-daemon/src/dora_daemon/agent/coordinator_link.py": disconnect}
    return _version(tmp_path_factory, "0.4.0", edits)


@pytest.fixture(scope="session")
def distant_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A version whose daemon cannot control runners of others."""
    edits = {"dora-config/src/dora_config/protocol/runner.py": _raise("RUNNER_PROTOCOL", (3, 0))}
    return _version(tmp_path_factory, "0.5.0", edits)


@pytest.fixture(scope="session")
def later_records_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A version whose records earlier ones cannot read."""
    edits = {"dora-daemon/src/dora_daemon/agent/records.py": _raise("RECORD_FORMAT", (2, 0))}
    return _version(tmp_path_factory, "0.6.0", edits)


def _raise(name: str, version: tuple[int, int]) -> Callable[[str], str]:
    """Return the edit that gives a format another version."""

    def edit(text: str) -> str:
        return re.sub(rf"{name}: Final = \(\d+, \d+\)", f"{name}: Final = {version}", text)

    return edit


def _download(folder: Path, *, path: str | None = None) -> None:
    """Download every dependency for the Python in ``path``."""
    machine = LocalMachine(folder, path=path)
    facts = call(machine, "versions.probe", prefix=str(folder), link=str(folder / "dora"))
    download(Platform.from_probe(facts), folder)


@pytest.fixture(scope="session")
def wheel_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dependency as a wheel for the Python that runs the tests."""
    return shared_folder(tmp_path_factory, "wheels", _download)


@pytest.fixture(scope="session")
def system_wheel_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dependency as a wheel for the system's Python, which hosts have."""
    return shared_folder(
        tmp_path_factory, "system-wheels", lambda path: _download(path, path="/usr/bin:/bin")
    )
