"""Fixtures: a fake runner, and nodes connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.fake_runner import FakeRunner, fake_runner

from dora_node_api import Node

Open = Callable[[str], Node]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[FakeRunner]:
    with fake_runner(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge of a node in the test process must not outlive the test."""
    monkeypatch.setattr(
        "dora_node_api.logging.logging_bridge.install", lambda node_id, has_terminal: None
    )


@pytest.fixture
def open_node(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Connects nodes of the fake runner in the test process, and closes them at the end."""
    with ExitStack() as opened:

        def connect(node_id: str) -> Node:
            for name, value in runner.environment(node_id).items():
                monkeypatch.setenv(name, value)
            node = opened.enter_context(Node())
            monkeypatch.delenv("DORA_NODE_CONFIG")
            return node

        yield connect
