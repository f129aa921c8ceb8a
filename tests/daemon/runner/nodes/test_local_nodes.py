"""What goes with a node: saved states, and a replacement."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.runner.nodes import node
from support.runner.runs import open_descriptors

from dora_daemon.link import LINK_NODE
from dora_daemon.runner.nodes.local_nodes import LocalNode, LocalNodes, Replacement
from dora_node_api.protocol.messages import RestoreState, SaveState, StopNode


class Fake:
    """A connection, a log or a process, and what it was told."""

    def __init__(self, incarnation: int | None = None) -> None:
        self.incarnation = incarnation
        self.closed = False
        self.calls: list[Any] = []

    def send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        self.calls.append(message)

    def signal_group(self, name: str) -> None:
        self.calls.append(name)

    def read_waiting(self) -> None:
        self.calls.append("read")

    def close(self) -> None:
        self.closed = True


def local(name: str = "a") -> LocalNode:
    program = cast("Any", SimpleNamespace(spec=node(name)))
    return LocalNode(program, cast("Any", Fake()))


def connect(to: LocalNode, incarnation: int) -> Fake:
    made = Fake()
    to.applicant = cast("Any", made)
    to.admit(incarnation)
    return made


def memory_file() -> int:
    return os.memfd_create("state")


@pytest.fixture
def nodes() -> LocalNodes:
    made = LocalNodes()
    made.add(local())
    return made


def test_the_next_process_gets_the_last_saved_state_once(nodes: LocalNodes) -> None:
    before = open_descriptors()
    a = nodes["a"]
    for size in (10, 20):
        a.save(1, SaveState("f", size), memory_file())
    first = connect(a, 1)
    a.restore()
    assert first.calls == []  # it has saved it itself
    second = connect(a, 2)
    a.restore()
    a.restore()
    assert second.calls == [RestoreState("f", 20)]
    assert open_descriptors() == before


def test_a_removed_node_takes_everything_along(nodes: LocalNodes) -> None:
    before = open_descriptors()
    a, process, log = nodes["a"], Fake(), Fake()
    a.save(1, SaveState("f", 10), memory_file())
    a.replacement = Replacement(a.program, cast("Any", log), 2, cast("Any", process))
    nodes.remove("a")
    assert nodes.participant("a") is None
    assert cast("Any", a.log).closed
    assert (process.calls, log.closed) == (["SIGKILL"], True)
    assert open_descriptors() == before
    assert nodes.revision == 1


def test_messages_reach_the_admitted_process_of_a_node_or_the_link(nodes: LocalNodes) -> None:
    assert not nodes.send("a", StopNode())
    assert not nodes.send("absent", StopNode())
    admitted, link = connect(nodes["a"], 7), Fake(8)
    nodes.link.connection = cast("Any", link)
    assert nodes.send("a", StopNode())
    assert nodes.send(LINK_NODE, StopNode())
    assert admitted.calls == link.calls == [StopNode()]
    admitted.closed = True
    assert not nodes.send("a", StopNode())
    nodes.read_waiting(8, except_for=None)
    nodes.read_waiting(8, except_for=cast("Any", link))
    assert (admitted.calls, link.calls) == ([StopNode()], [StopNode(), "read"])
