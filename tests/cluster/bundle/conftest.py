"""Installers of several versions that share what they make."""

from __future__ import annotations

import os
import random
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cluster.installation import Installation, LocalMachine
from support.cluster.versions import broken_version, new_version, old_version, wheel_house

from dora_cluster.bundle import install
from dora_cluster.bundle.install import Installer
from dora_cluster.bundle.layout import USER
from dora_cluster.bundle.own_packages import packages_for_machines

__all__ = ["broken_version", "new_version", "old_version", "wheel_house"]

MakeInstaller = Callable[[Installation], Installer]
SMALL = 1_000_000
"""Bytes of the dependencies of a small installation, which cannot be compressed."""


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small-cache")


def makers(wheels: Path, cache: Path, patch: pytest.MonkeyPatch) -> Iterator[MakeInstaller]:
    """Yield a function that creates the installer of a version; it shares the archives."""
    patch.setenv("XDG_CACHE_HOME", str(cache))
    yield lambda version: Installer(wheels, lambda: packages_for_machines([str(version.site)]))
    assert not [name for name in os.listdir(cache / "dora" / "archives") if name[0] == "."]


@pytest.fixture
def installer(
    wheel_house: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeInstaller]:
    """Creates the installer of a version."""
    yield from makers(wheel_house, shared_cache, monkeypatch)


@pytest.fixture
def small_installer(
    tmp_path: Path, small_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeInstaller]:
    """Like `installer`, with one file instead of the dependencies and without the self-test.

    `dora --version` works in such an installation.
    """

    def put_dependencies(_platform: object, site: Path, **_options: object) -> None:
        (site / "dependencies.bin").write_bytes(random.Random(1).randbytes(SMALL))

    monkeypatch.setattr(install, "install", put_dependencies)
    for name in ("self_test", "load_test"):
        monkeypatch.setattr(install, name, lambda machine, tree: None)
    yield from makers(tmp_path, small_cache, monkeypatch)


@pytest.fixture
def linked_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeInstaller]:
    """Like `installer`, with the dependencies of the tests' environment; with the self-test."""

    def link_dependencies(_platform: object, site: Path, **_options: object) -> None:
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    monkeypatch.setattr(install, "install", link_dependencies)
    yield from makers(tmp_path, tmp_path / "cache", monkeypatch)


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    (tmp_path / "robot").mkdir()
    return LocalMachine(tmp_path / "robot")


@pytest.fixture(scope="module")
def installed_machine(
    wheel_house: Path,
    shared_cache: Path,
    old_version: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[LocalMachine, install.Installed]:
    """A machine with version 0.1.0 and all its dependencies; tests leave it as it is."""
    machine = LocalMachine(tmp_path_factory.mktemp("robot"))
    with pytest.MonkeyPatch.context() as patch:
        for make in makers(wheel_house, shared_cache, patch):
            found = make(old_version).ensure_installed(machine, USER, lambda text: None)
    return machine, found


def put(installer: Installer, machine: LocalMachine) -> list[str]:
    """Install; return the reports."""
    reports: list[str] = []
    installer.ensure_installed(machine, USER, reports.append)
    return reports


def version_of(machine: LocalMachine) -> str:
    done = machine.run([str(machine.home / ".local" / "bin" / "dora"), "--version"])
    assert done.code == 0, done
    return done.stdout.strip()


def versions(machine: LocalMachine) -> set[str]:
    return {
        path.name
        for path in (machine.home / ".local/share/dora/versions").iterdir()
        if not path.is_symlink()
    }
