"""Hosts for the tests of this folder: two, shared by a module, and somebody whom they let in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hosts import Hosts, hosts_or_skip
from support.versions import mute_version, new_version, old_version, system_wheel_house

__all__ = ["mute_version", "new_version", "old_version", "system_wheel_house"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts, `robot` and `gpu`."""
    yield from hosts_or_skip("robot", "gpu")


@pytest.fixture
def desk(hosts: Hosts, home: Path) -> Iterator[Path]:
    """This thread is on the hosts' network and has a key; the home folder."""
    hosts.write_ssh(home)
    with hosts.desk():
        yield home
