"""Receiving inside asyncio: without a thread, cancelled cleanly, fair to other tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from support.fake_runner import FakeRunner

from dora_node_api import Node, NodeClosed, events
from dora_node_api.protocol import messages as control

Open = Callable[[str], Node]


@pytest.fixture
def pair(runner: FakeRunner, open_node: Open) -> tuple[Node, Node]:
    runner.connect("a/out", "b/in", queue_size=1000)
    return open_node("a"), open_node("b")


async def number(node: Node) -> int:
    event = await node.recv_async(timeout=60)
    assert event is not None
    assert event["type"] == "INPUT", event
    return int(event["value"][0].as_py())


def test_a_message_wakes_the_task_without_a_thread(pair: tuple[Node, Node]) -> None:
    a, b = pair

    async def main() -> None:
        threads = threading.active_count()
        waiting = asyncio.create_task(number(b))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        a.send_output("out", pa.array([5]))
        assert await waiting == 5
        assert threading.active_count() == threads

    asyncio.run(main())


def test_cancelling_loses_nothing(pair: tuple[Node, Node]) -> None:
    a, b = pair

    async def main() -> list[int]:
        got: list[int] = []
        sent = 0
        while len(got) < 200:
            task = asyncio.create_task(number(b))
            for _ in range(len(got) % 4):
                await asyncio.sleep(0)
            if sent < 200:
                a.send_output("out", pa.array([sent]))
                sent += 1
            for _ in range(len(got) % 3):
                await asyncio.sleep(0)
            task.cancel()
            try:
                got.append(await task)
            except asyncio.CancelledError:
                got.append(await number(b))
        return got

    assert asyncio.run(main()) == list(range(200))


def test_timeout_and_its_limits(pair: tuple[Node, Node]) -> None:
    _, b = pair

    async def main() -> Any:
        with pytest.raises(ValueError, match="timeout"):
            await b.recv_async(timeout=-1)
        return await b.recv_async(timeout=0.01)

    event = asyncio.run(main())
    assert event["type"] == "ERROR"
    assert "timed out" in event["error"]


def test_other_tasks_run_while_messages_keep_coming(pair: tuple[Node, Node]) -> None:
    a, b = pair

    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for _ in range(3000):
            a.send_output("out", pa.array([1]))
            await number(b)
        task.cancel()
        assert turns > 2

    asyncio.run(main())


def test_ticks_come_in_time(runner: FakeRunner, open_node: Open) -> None:
    runner.add_node("a")
    runner.add_timer("a", "tick", 0.02)
    a = open_node("a")

    async def main() -> list[str]:
        return [event["id"] for event in [await a.recv_async() for _ in range(4)] if event]

    assert asyncio.run(main()) == ["tick"] * 4


def test_iteration_ends_with_the_stream(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair

    async def main() -> list[str]:
        a.send_output("out", pa.array([1]))
        runner.edges[0].keeper.announce_closed()
        seen = [event["type"] async for event in b]
        assert await b.recv_async() is None
        return seen

    assert asyncio.run(main()) == ["INPUT", "INPUT_CLOSED", "STOP"]


def test_typed_events(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    _, b = pair

    async def main() -> list[events.Event]:
        runner.send("b", control.SetParam("k", 1))
        runner.send("b", control.StopNode())
        return [event async for event in b.events()]

    assert asyncio.run(main()) == [events.ParamUpdated("k", 1), events.Stop("MANUAL")]


def test_a_control_message_wakes_the_task(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    _, b = pair

    async def main() -> Any:
        task = asyncio.create_task(b.recv_async())
        await asyncio.sleep(0.01)
        runner.send("b", control.StopNode())
        return await asyncio.wait_for(task, 20)

    assert asyncio.run(main())["type"] == "STOP"


def test_two_tasks_share_the_stream(pair: tuple[Node, Node]) -> None:
    a, b = pair

    async def main() -> list[int]:
        tasks = [asyncio.create_task(number(b)) for _ in range(2)]
        await asyncio.sleep(0.01)
        a.send_output("out", pa.array([1]))
        a.send_output("out", pa.array([2]))
        return sorted(await asyncio.gather(*tasks))

    assert asyncio.run(main()) == [1, 2]


def test_a_new_event_loop_takes_over(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for expected in range(3):

        async def main(expected: int = expected) -> None:
            task = asyncio.create_task(number(b))
            await asyncio.sleep(0)
            a.send_output("out", pa.array([expected]))
            assert await task == expected

        asyncio.run(main())


def test_closing_ends_the_wait(pair: tuple[Node, Node]) -> None:
    _, b = pair

    async def main() -> None:
        task = asyncio.create_task(b.recv_async())
        await asyncio.sleep(0.01)
        b.close()
        with pytest.raises(NodeClosed):
            await asyncio.wait_for(task, 20)

    asyncio.run(main())
