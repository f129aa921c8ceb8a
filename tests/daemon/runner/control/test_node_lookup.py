"""Lookup of nodes for requests."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import anyio
import anyio.lowlevel
import pytest

from dora_config.protocol.runner_events import NodeResult
from dora_daemon.runner.control.node_lookup import NodeLookup, require_running, require_success
from dora_daemon.runner.errors import PartEnds, RequestRefused
from dora_daemon.runner.machine.node import NodeLifecycle
from dora_daemon.runner.machine.state import RunnerMachine
from dora_daemon.runner.service import Runner


class FakeDispatcher:
    def __init__(self, state: FakeMachine) -> None:
        self.state = state

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await anyio.lowlevel.checkpoint()


class FakeMachine(SimpleNamespace):
    """State machine with one node, "camera"."""

    phase = "running"

    def node(self, node: str) -> SimpleNamespace | None:
        return self.camera if node == "camera" else None


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(camera=SimpleNamespace(id="camera", pid=None, result=None))


@pytest.fixture
def lookup(machine: FakeMachine) -> NodeLookup:
    nodes = {"camera": "what the runner has of it"}
    services = SimpleNamespace(nodes=nodes)
    runner = SimpleNamespace(dispatcher=FakeDispatcher(machine), services=services)
    return NodeLookup(cast(Runner, runner))


def test_a_node_is_found_by_its_id(machine: FakeMachine, lookup: NodeLookup) -> None:
    assert lookup.lifecycle("camera") is machine.camera
    assert lookup.local("camera") == "what the runner has of it"  # type: ignore[comparison-overlap]


def test_an_unknown_node_is_refused_with_the_known_ones(lookup: NodeLookup) -> None:
    with pytest.raises(RequestRefused, match=r'"arm" does not exist .* \(its nodes: camera\)'):
        lookup.local("arm")


def test_a_condition_of_a_node_is_awaited(machine: FakeMachine, lookup: NodeLookup) -> None:
    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lookup.until, "camera", lambda node: node.pid == 3)
            await anyio.lowlevel.checkpoint()
            machine.camera.pid = 3

    anyio.run(scenario)


@pytest.mark.parametrize(
    ("phase", "reason"), [("stopping", "is stopping"), ("finished", "has ended")]
)
def test_a_dataflow_that_ends_refuses_changes(
    machine: FakeMachine, phase: str, reason: str
) -> None:
    machine.phase = phase
    with pytest.raises(PartEnds, match=reason):
        require_running(cast(RunnerMachine, machine))


def test_the_failure_of_a_node_has_its_last_line(machine: FakeMachine) -> None:
    node = cast(NodeLifecycle, machine.camera)
    require_success(node)
    machine.camera.result = NodeResult(
        node="camera", outcome="failed", message="exited with code 1", stderr_tail=("a", "b")
    )
    with pytest.raises(RequestRefused, match='"camera" exited with code 1: b'):
        require_success(node)
