"""Changes of running parts: links first, then nodes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import anyio
import pytest
from support.simulation.fleets import dataflow

from dora_config.protocol.calls import ChangePart, PartLinks
from dora_config.protocol.links import RemoteEdge, SetLinks
from dora_config.protocol.runner import (
    ConnectInput,
    Done,
    RunnerReply,
    RunnerRequest,
)
from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.linking import LinkSetup, Listen
from dora_daemon.agent.node_paths import LocalMachine
from dora_daemon.agent.parts.changes import PartChanges
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.registry import NotAnswered, RunnerRegistry

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
EDGE = RemoteEdge(
    source="camera",
    output="image",
    target="plot",
    input="image",
    queue_size=1,
    source_machine="robot",
    target_machine="station",
)
CONNECT = ConnectInput(source="camera", output="image", target="plot", input="image")
RECORD = PartRecord(
    dataflow_id=ID, attempt=1, spec=dataflow(plot="station"), machine="station", phase="running"
)


class Runner:
    """A runner that refuses requests of some kinds."""

    def __init__(self, *refused: str) -> None:
        self.requests: list[RunnerRequest] = []
        self._refused = refused

    async def ask(self, dataflow_id: str, request: RunnerRequest) -> RunnerReply:
        self.requests.append(request)
        if request.kind in self._refused:
            raise NotAnswered(f"no {request.kind}")
        return Done()

    def edges(self) -> list[tuple[RemoteEdge, ...]]:
        """Return the edges of each list of links that it received."""
        return [one.links.edges for one in self.requests if isinstance(one, SetLinks)]


def change(folder: Path, runner: Runner, *edges: RemoteEdge) -> None:
    """Connect an input with these links. Raises NotAnswered."""

    async def run() -> None:
        changes = PartChanges(
            lambda: cast(LocalMachine, None),
            cast(RunnerRegistry, runner),
            LinkSetup(Listen("127.0.0.1", plain=True), "", Credentials(folder)),
            lambda _: RECORD,
            lambda _: None,
        )
        links = PartLinks(edges=edges)
        await changes.change(ChangePart(dataflow_id=ID, attempt=1, links=links, change=CONNECT))

    anyio.run(run)


def test_new_links_are_sent_before_the_change(tmp_path: Path) -> None:
    runner = Runner()
    change(tmp_path, runner, EDGE)
    assert [one.kind for one in runner.requests] == ["set_links", "connect_input", "get_nodes"]
    assert runner.edges() == [(EDGE,)]


def test_links_of_a_refused_change_are_restored(tmp_path: Path) -> None:
    runner = Runner("connect_input")
    with pytest.raises(NotAnswered, match="no connect_input"):
        change(tmp_path, runner, EDGE)
    assert [one.kind for one in runner.requests] == ["set_links", "connect_input", "set_links"]
    assert runner.edges() == [(EDGE,), ()]


def test_a_refused_change_without_other_links_restores_none(tmp_path: Path) -> None:
    runner = Runner("connect_input")
    with pytest.raises(NotAnswered, match="no connect_input"):
        change(tmp_path, runner)
    assert runner.requests == [CONNECT]


def test_nothing_is_changed_if_the_links_are_refused(tmp_path: Path) -> None:
    runner = Runner("set_links")
    with pytest.raises(NotAnswered, match="no set_links"):
        change(tmp_path, runner, EDGE)
    assert runner.edges() == [(EDGE,)]
    assert CONNECT not in runner.requests
