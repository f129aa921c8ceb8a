"""What tests of dora-ros2 share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ros2.routers import open_sockets
from support.waiting import wait_until

ORACLE = "DORA_TESTS_RCLPY"
"""Set by ``nox -s ros2``: the interpreter of an environment with rclpy."""
ZENOH_SDK = "DORA_TESTS_ZENOH_SDK"
"""Set by ``nox -s ros2``: the interpreter of an environment with zenoh-ros2-sdk."""

collect_ignore = [
    folder
    for variable, folder in ((ORACLE, "oracle"), (ZENOH_SDK, "interop"))
    if not os.environ.get(variable)
]

LIVE = (
    "test_actions",
    "test_api",
    "test_bridge",
    "test_bridge_dds",
    "test_commands",
    "test_page",
    "test_parameters",
    "test_services",
    "test_session",
    "test_topics",
)
"""Modules whose tests exchange messages with another participant."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.path.stem in LIVE:
            item.add_marker(pytest.mark.ros)


@pytest.fixture(autouse=True)
def no_sockets_left() -> Iterator[None]:
    """Zenoh closes its sockets a moment after a session was closed."""
    before = open_sockets()
    yield
    wait_until(lambda: open_sockets() <= before, what="the sockets of the test to close")
