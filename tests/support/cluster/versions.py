"""Session fixtures: installations of several versions, and wheels of their dependencies."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cluster.installation import Installation, LocalMachine, install

from dora_cli.bundle.dependencies import download
from dora_cli.bundle.platform import Platform
from dora_cli.ssh.remote_call import call


@pytest.fixture(scope="session")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(tmp_path_factory.mktemp("old"), "0.1.0")


@pytest.fixture(scope="session")
def new_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(tmp_path_factory.mktemp("new"), "0.2.0")


@pytest.fixture(scope="session")
def broken_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A version whose nodes cannot send, so that its self-test fails."""

    def broken(text: str) -> str:
        return text.replace("def send_output(", "def send_nothing(", 1)

    edits = {"dora-node-api/src/dora_node_api/node.py": broken}
    return install(tmp_path_factory.mktemp("broken"), "0.3.0", edits)


@pytest.fixture(scope="session")
def disconnected_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A version that passes its self-test, but whose daemon reaches no remote coordinator."""

    def disconnect(text: str) -> str:
        chosen = '"/api/daemon" if endpoint.host == "127.0.0.1" else "/api/nowhere"'
        return text.replace('endpoint.url("/api/daemon")', f"endpoint.url({chosen})", 1)

    edits = {"dora-daemon/src/dora_daemon/agent/coordinator_link.py": disconnect}
    return install(tmp_path_factory.mktemp("disconnected"), "0.4.0", edits)


def wheels_for(facts_of: LocalMachine, folder: Path) -> Path:
    """Download every dependency for a machine into ``folder``."""
    facts = call(facts_of, "versions.probe", prefix=str(folder), link=str(folder / "dora"))
    download(Platform.from_probe(facts), folder)
    return folder


@pytest.fixture(scope="session")
def wheel_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dependency as a wheel for the Python that runs the tests."""
    folder = tmp_path_factory.mktemp("wheels")
    return wheels_for(LocalMachine(folder), folder)


@pytest.fixture(scope="session")
def system_wheel_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dependency as a wheel for the system's Python, which hosts have."""
    folder = tmp_path_factory.mktemp("system-wheels")
    return wheels_for(LocalMachine(folder, path="/usr/bin:/bin"), folder)
