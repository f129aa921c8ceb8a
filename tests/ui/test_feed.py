"""The state is read once for all pages, and only while a page is open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

import anyio
import pytest

from dora_cli.coordinator.errors import CoordinatorLost
from dora_config.access import endpoint
from dora_config.protocol.control import (
    ControlAnswer,
    DataflowList,
    DataflowSummary,
    ListDataflows,
)
from dora_config.protocol.envelope import Message, Request
from dora_config.protocol.snapshot import (
    MachineLoad,
    MachineSummary,
    NodeSummary,
    Snapshot,
)
from dora_ui.connection import CoordinatorConnection
from dora_ui.feed import Feed, Version, difference
from dora_ui.streams import OpenState, send_state

A = TypeVar("A", bound=Message)
FIRST = "8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c11"
SECOND = "8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c12"


class FakeCoordinator(CoordinatorConnection):
    """Two dataflows with a node each, whose queue grows with every snapshot."""

    def __init__(self) -> None:
        super().__init__("fake", endpoint)
        self.snapshots = 0
        self.repeats = False
        """Whether the last snapshot is sent again."""
        self.problem: str | None = None

    async def request(self, request: Request[A]) -> A:
        answer = self._answer(request)
        assert isinstance(answer, request.answer_type())
        return answer

    def _answer(self, request: Request[A]) -> ControlAnswer:
        if isinstance(request, ListDataflows):
            rows = [DataflowSummary(uuid=uuid, status="Running") for uuid in (FIRST, SECOND)]
            return DataflowList(dataflows=tuple(rows))
        if self.problem is not None:
            raise CoordinatorLost(self.problem)
        if not self.repeats:
            self.snapshots += 1
        nodes = [
            NodeSummary(
                node="camera", dataflow=uuid, daemon="a", status="Running", queued=self.snapshots
            )
            for uuid in (FIRST, SECOND)
        ]
        load = MachineLoad(cpus=2, cpu_seconds=float(self.snapshots), memory_total_bytes=1)
        return Snapshot(
            time=float(self.snapshots),
            nodes=tuple(nodes),
            machines=(MachineSummary(daemon="robot", load=load),),
        )


async def read(versions: AsyncGenerator[Version]) -> Version:
    with anyio.fail_after(30):
        return await anext(versions)


def patch(before: Version, now: Version, dataflow: str | None) -> dict[str, Any]:
    return difference(before.scoped(dataflow), now.scoped(dataflow))


def test_patches_contain_the_details_of_one_dataflow() -> None:
    async def check() -> None:
        coordinator = FakeCoordinator()
        feed = Feed(coordinator, read_only=False)
        async with anyio.create_task_group() as tasks, aclosing(feed.versions()) as versions:
            tasks.start_soon(feed.run)
            first = await read(versions)
            assert list(first.scoped(None)["nodes"]) == []
            assert list(first.scoped(FIRST)["nodes"]) == [FIRST]
            feed.read_now()
            second = await read(versions)
            machines = {"robot": {"cpu": 50.0}}
            nodes = {FIRST: {"camera": {"queued": 2}}}
            assert patch(first, second, FIRST) == {"machines": machines, "nodes": nodes}
            assert patch(first, second, None) == {"machines": machines}
            tasks.cancel_scope.cancel()

    anyio.run(check)


def test_without_a_page_nothing_is_read() -> None:
    async def check() -> None:
        coordinator = FakeCoordinator()
        feed = Feed(coordinator, read_only=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            for _ in range(5):
                await anyio.wait_all_tasks_blocked()
                feed.read_now()
            assert coordinator.snapshots == 0
            async with aclosing(feed.versions()) as one, aclosing(feed.versions()) as other:
                source: Any = (await read(one)).state["source"]
                await read(other)
                assert source == {"address": "fake", "readOnly": True}
                assert coordinator.snapshots == 1
            for _ in range(5):
                await anyio.wait_all_tasks_blocked()
                feed.read_now()
            assert coordinator.snapshots <= 2
            tasks.cancel_scope.cancel()

    anyio.run(check)


def test_a_lost_coordinator_keeps_the_last_state() -> None:
    async def check() -> None:
        coordinator = FakeCoordinator()
        feed = Feed(coordinator, read_only=False)
        async with anyio.create_task_group() as tasks, aclosing(feed.versions()) as versions:
            tasks.start_soon(feed.run)
            first = await read(versions)
            coordinator.problem = "gone"
            feed.read_now()
            lost = await read(versions)
            assert patch(first, lost, FIRST) == {"source": {"problem": "gone"}}
            assert lost.state["dataflows"].keys() == {FIRST, SECOND}
            coordinator.problem = None
            feed.read_now()
            back = await read(versions)
            assert patch(lost, back, None) == {"source": {"problem": None}}
            tasks.cancel_scope.cancel()

    anyio.run(check)


def test_a_state_from_before_a_pause_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_ui.feed.STALE_SECONDS", -1.0)

    async def check() -> None:
        coordinator = FakeCoordinator()
        feed = Feed(coordinator, read_only=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            async with aclosing(feed.versions()) as versions:
                before = await read(versions)
            async with aclosing(feed.versions()) as versions:
                assert (await read(versions)).number > before.number
            tasks.cancel_scope.cancel()

    anyio.run(check)


def test_a_page_that_comes_back_does_not_wait_for_a_slow_coordinator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dora_ui.feed.STALE_SECONDS", -1.0)
    monkeypatch.setattr("dora_ui.feed.PERIOD", 3600.0)
    monkeypatch.setattr("dora_ui.feed.MAX_PAUSE", 3600.0)

    async def check() -> None:
        coordinator = FakeCoordinator()
        feed = Feed(coordinator, read_only=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            for expected in (1, 2):
                async with aclosing(feed.versions()) as versions:
                    await read(versions)
                assert coordinator.snapshots == expected
            tasks.cancel_scope.cancel()

    anyio.run(check)


def test_frames_contain_the_present_time_by_the_clock_of_the_state() -> None:
    frames: list[dict[str, Any]] = []

    async def check() -> None:
        coordinator = FakeCoordinator()
        feed = Feed(coordinator, read_only=False)
        sent = anyio.Event()

        async def send(frame: dict[str, Any]) -> None:
            frames.append(frame)
            sent.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            tasks.start_soon(send_state, feed, OpenState(id=7, open="state"), send)
            with anyio.fail_after(30):
                await sent.wait()
            tasks.cancel_scope.cancel()

    anyio.run(check)
    assert frames[0]["id"] == 7
    assert 1.0 <= frames[0]["time"] < 31.0  # the time of the first snapshot is 1


def test_a_snapshot_that_is_sent_again_keeps_the_rates() -> None:
    async def check() -> None:
        coordinator = FakeCoordinator()
        feed = Feed(coordinator, read_only=False)
        async with anyio.create_task_group() as tasks, aclosing(feed.versions()) as versions:
            tasks.start_soon(feed.run)
            await read(versions)
            feed.read_now()
            second = await read(versions)
            assert second.state["machines"]["robot"]["cpu"] == 50.0
            coordinator.repeats = True
            feed.read_now()
            assert patch(second, await read(versions), None) == {}
            tasks.cancel_scope.cancel()

    anyio.run(check)
