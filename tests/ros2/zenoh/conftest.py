"""A router for the tests of one module; no test leaves a thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from ros2.routers import Router, running_router
from support.waiting import wait_until


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with running_router() as running:
        yield running


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
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
