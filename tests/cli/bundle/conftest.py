"""Installations of several versions, and the wheels of their dependencies; made once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.installation import Installation, LocalMachine, install

from dora_cli.bundle.dependencies import fetch
from dora_cli.bundle.install import Installer
from dora_cli.bundle.machine import ask
from dora_cli.bundle.own_packages import own_packages
from dora_cli.bundle.platform import Platform

MakeInstaller = Callable[[Installation], Installer]


@pytest.fixture(scope="session")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(tmp_path_factory.mktemp("old"), "0.1.0")


@pytest.fixture(scope="session")
def new_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(tmp_path_factory.mktemp("new"), "0.2.0")


@pytest.fixture(scope="session")
def broken_version(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Its nodes cannot send."""

    def broken(text: str) -> str:
        return text.replace("def send_output(", "def send_nothing(", 1)

    edits = {"dora-node-api/src/dora_node_api/node.py": broken}
    return install(tmp_path_factory.mktemp("broken"), "0.3.0", edits)


@pytest.fixture(scope="session")
def wheel_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dependency as a wheel for this machine."""
    folder = tmp_path_factory.mktemp("wheels")
    facts = ask(LocalMachine(folder), "probe", prefix=str(folder))
    fetch(Platform.from_probe(facts), folder)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def installer(
    wheel_house: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeInstaller]:
    """Makes the installer of a version; archives are made once for all tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    yield lambda version: Installer(wheel_house, lambda: own_packages([str(version.site)]))
    assert not [name for name in os.listdir(shared_cache / "dora" / "archives") if name[0] == "."]


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    (tmp_path / "robot").mkdir()
    return LocalMachine(tmp_path / "robot")
