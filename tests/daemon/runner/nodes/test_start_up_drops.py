"""Warnings about full inputs: one for the start-up, one for each edge afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from support.dora import run_dora
from support.waiting import wait_until_async
from support.workspace import Workspace

from dora_config.protocol.runner_events import LogLine
from dora_daemon.runner.nodes import start_up_drops
from dora_daemon.runner.nodes.start_up_drops import StartUpDrops, summary


@dataclass
class Scene:
    """Queues by edge with counters set by the test, and the logged lines."""

    counters: dict[str, SimpleNamespace] = field(default_factory=dict)
    dropped_before: dict[str, int] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)

    def all(self) -> list[Any]:
        return [
            SimpleNamespace(
                spec=SimpleNamespace(edge=edge),
                keeper=SimpleNamespace(statistics=lambda counted=counted: counted),
            )
            for edge, counted in self.counters.items()
        ]

    def drops(self) -> StartUpDrops:
        return StartUpDrops(
            cast("Any", self),
            lambda entry: self.logged.append(entry.message),
            lambda message, first: self.summaries.append(message),
        )

    def count(self, edge: str, dropped: int, received: int = 1) -> LogLine:
        """Set the counters of an edge; return its warning."""
        self.counters[edge] = SimpleNamespace(dropped=dropped, received=received)
        return LogLine(ts="", level="warn", message=f"{edge} is full", fields={"edge": edge})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_up_drops, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(start_up_drops, "START_UP_SECONDS", 0.05)
    monkeypatch.setattr(start_up_drops, "MAX_START_UP", 3.0)


def play(scenario: Callable[[Scene, StartUpDrops], Awaitable[None]]) -> Scene:
    scene = Scene()

    async def run() -> None:
        drops = scene.drops()
        await scenario(scene, drops)
        drops.close()

    anyio.run(run)
    return scene


def test_several_edges_become_one_line_and_later_drops_are_named() -> None:
    async def scenario(scene: Scene, drops: StartUpDrops) -> None:
        drops.started()
        drops.log(scene.count("a/o -> b/i", 3))
        drops.log(scene.count("a/o -> c/i", 20))
        assert not scene.logged
        await wait_until_async(lambda: bool(scene.summaries), what="the summary")
        scene.count("a/o -> c/i", 21)
        await wait_until_async(lambda: bool(scene.logged), what="the warning of the edge")
        drops.log(scene.count("a/o -> late/i", 1))

    scene = play(scenario)
    assert scene.summaries == [summary({"a/o -> b/i": 3, "a/o -> c/i": 20})]
    assert "2 inputs were full during start-up" in scene.summaries[0]
    assert ": c/i (20), b/i (3). " in scene.summaries[0]
    assert scene.logged == ["a/o -> c/i is full", "a/o -> late/i is full"]


def test_a_single_edge_has_its_own_warning() -> None:
    async def scenario(scene: Scene, drops: StartUpDrops) -> None:
        drops.log(scene.count("a/o -> b/i", 3))

    scene = play(scenario)
    assert (scene.logged, scene.summaries) == (["a/o -> b/i is full"], [])


def test_the_start_up_lasts_until_every_node_has_received_something() -> None:
    async def scenario(scene: Scene, drops: StartUpDrops) -> None:
        drops.log(scene.count("a/o -> b/i", 3))
        drops.log(scene.count("a/o -> slow/i", 1, received=0))
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0.2):
            await wait_until_async(lambda: bool(scene.summaries), what="a line too early")
        assert not scene.summaries
        scene.count("a/o -> slow/i", 90, received=1)
        await wait_until_async(lambda: bool(scene.summaries), what="the line")

    assert "slow/i (90), b/i (3)" in play(scenario).summaries[0]


def test_edges_that_have_closed_keep_their_counts() -> None:
    async def scenario(scene: Scene, drops: StartUpDrops) -> None:
        for edge, dropped in (("a/o -> b/i", 3), ("a/o -> c/i", 20)):
            drops.log(scene.count(edge, dropped))
            scene.dropped_before[edge] = scene.counters.pop(edge).dropped

    assert ": c/i (20), b/i (3). " in play(scenario).summaries[0]


def test_other_entries_are_logged_at_once() -> None:
    async def scenario(scene: Scene, drops: StartUpDrops) -> None:
        drops.log(LogLine(ts="", level="warn", message="other"))
        assert scene.logged == ["other"]

    play(scenario)


@pytest.mark.integration
def test_a_run_whose_nodes_start_slowly_prints_one_warning(workspace: Workspace) -> None:
    workspace.node(
        "source",
        """
        import time
        from dora import Node

        with Node() as node:
            for _ in range(100):
                node.send_output("out", b"x")
                time.sleep(0.005)
        """,
    )
    workspace.node(
        "slow",
        """
        import time
        from dora import Node

        with Node() as node:
            time.sleep(1)
            for event in node:
                pass
        """,
    )
    slow = [{"id": f"s{n}", "path": "slow.py", "inputs": {"in": "source/out"}} for n in range(3)]
    source = {"id": "source", "path": "source.py", "outputs": ["out"]}
    workspace.dataflow({"nodes": [source, *slow]}, "flow.yml")
    shown = run_dora("run", "flow.yml", cwd=workspace.path).succeeded()
    (line,) = shown.stdout.splitlines()
    assert "[dora]: 3 inputs were full during start-up" in line
    assert all(f"s{n}/in (" in line for n in range(3))
    assert "/in (0)" not in line
