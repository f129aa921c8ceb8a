"""A router for the tests of one module; no test leaves a thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ros2.routers import Router, running_router
from support.waiting import wait_until


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with running_router() as running:
        yield running


def _sockets() -> set[str]:
    """Return the sockets of this process; Zenoh closes some shortly after their sessions."""
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.add(str(entry.readlink()))
    return {link for link in links if link.startswith("socket:")}


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before, sockets = set(threading.enumerate()), _sockets()
    yield
    wait_until(lambda: _sockets() <= sockets, what="the sockets of the test to close")
    wait_until(
        lambda: (
            not [
                thread
                for thread in threading.enumerate()
                if thread not in before and not thread.name.startswith("Dummy-")
            ]
        ),
        what="the threads of the test to end",
    )
