"""Fixtures of the link's tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon.link.certificates import Authority
from daemon.link.machine import Machine

Make = Callable[..., Machine]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def make(home: Path, authority: Authority) -> Iterator[Make]:
    """Machines by name, with certificates of one authority."""
    machines: list[Machine] = []

    def make(name: str, **settings: object) -> Machine:
        folder = authority.sign(home / f"credentials-{name}", name)
        machine = Machine(name, home, credentials=folder, **settings)  # type: ignore[arg-type]
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        machine.close()
    machines.clear()
    gc.collect()
