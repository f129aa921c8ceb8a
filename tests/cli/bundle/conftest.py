"""Installers of several versions that share what they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cluster.installation import Installation, LocalMachine
from support.cluster.versions import broken_version, new_version, old_version, wheel_house

from dora_cli.bundle.install import Installer
from dora_cli.bundle.own_packages import own_packages

__all__ = ["broken_version", "new_version", "old_version", "wheel_house"]

MakeInstaller = Callable[[Installation], Installer]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def installer(
    wheel_house: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeInstaller]:
    """Creates the installer of a version; archives are shared by all tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    yield lambda version: Installer(wheel_house, lambda: own_packages([str(version.site)]))
    assert not [name for name in os.listdir(shared_cache / "dora" / "archives") if name[0] == "."]


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    (tmp_path / "robot").mkdir()
    return LocalMachine(tmp_path / "robot")
