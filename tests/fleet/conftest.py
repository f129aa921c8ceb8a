"""Two test hosts, shared by the tests of a module, and a user with access to them.

Modules whose tests also share a cluster use `shared_home` as their `home`, and `cluster_yml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.clusters import cluster_file, ended_cluster
from support.cluster.hosts import Hosts, hosts_or_skip
from support.cluster.versions import (
    disconnected_version,
    distant_version,
    later_records_version,
    new_version,
    old_version,
    shared_folder,
    system_wheel_house,
)
from support.dora import run_dora

__all__ = [
    "disconnected_version",
    "distant_version",
    "later_records_version",
    "new_version",
    "old_version",
    "system_wheel_house",
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts, `robot` and `gpu`."""
    yield from hosts_or_skip("robot", "gpu")


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives for machines by the digest of their contents, shared by all tests and workers."""
    return shared_folder(tmp_path_factory, "archives", lambda _: None)


@pytest.fixture(autouse=True)
def shared_archives(home: Path, archives: Path) -> None:
    """Let the command line use the shared archives as its cache."""
    place = home / "cache" / "dora" / "archives"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(archives)


@pytest.fixture
def workstation(hosts: Hosts, home: Path) -> Iterator[Path]:
    """The home folder, with a key; this thread is on the hosts' network."""
    hosts.write_ssh(home)
    with hosts.workstation():
        yield home


@pytest.fixture(scope="module")
def shared_workstation(hosts: Hosts, shared_home: Path) -> Iterator[Path]:
    """Like `workstation`, for all tests of a module."""
    hosts.write_ssh(shared_home)
    with hosts.workstation():
        yield shared_home


@pytest.fixture(scope="module")
def cluster_yml(
    hosts: Hosts, shared_workstation: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The cluster file of both hosts; after the last test of a module everything is removed."""
    assert shared_workstation.is_dir()
    path = cluster_file(hosts, tmp_path_factory.mktemp("cluster"))
    with ended_cluster(path):
        yield path
        if any(host.path("/etc/dora-daemon").exists() for host in hosts):
            run_dora("cluster", "uninstall", path)
