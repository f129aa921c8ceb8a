"""Events of subscriptions among those of the dataflow."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from typing import Any

import pyarrow as pa
import pytest
from node_api.conftest import Open
from support.fake_runner import FakeRunner

from dora_node_api import Node


class Source:
    """A subscription."""

    def __init__(self) -> None:
        self.values: deque[Any] = deque()
        self.descriptor = -1

    def next(self) -> Any:
        return self.values.popleft() if self.values else None

    def notify(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def put(self, value: Any) -> None:
        self.values.append(value)
        os.eventfd_write(self.descriptor, 1)


@pytest.fixture
def pair(runner: FakeRunner, open_node: Open) -> tuple[Node, Node]:
    runner.connect("a/out", "b/in")
    return open_node("a"), open_node("b")


def test_both_kinds_take_turns_and_wake_a_wait(pair: tuple[Node, Node]) -> None:
    a, b = pair
    first, second = Source(), Source()
    b.merge_external_events(first)
    b.merge_external_events(second)
    timed_out = b.next(timeout=0.01)
    assert timed_out is not None
    assert timed_out["type"] == "ERROR"
    for number in range(3):
        first.put(number)
        second.put(10 + number)
        a.send_output("out", pa.array([number]))
    events = [b.next(timeout=20) for _ in range(9)]
    values = [event["value"] for event in events if event and event["kind"] == "external"]
    assert sorted(values) == [0, 1, 2, 10, 11, 12]
    assert sum(event is not None and event.get("type") == "INPUT" for event in events) == 3
    timer = threading.Timer(0.05, first.put, ["late"])
    timer.start()
    assert b.next(timeout=20) == {"kind": "external", "value": "late"}
    timer.join()


def test_inside_asyncio(pair: tuple[Node, Node]) -> None:
    a, b = pair
    source = Source()
    b.merge_external_events(source)

    async def receive() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, source.put, "x")
        first = await b.recv_async(timeout=20)
        loop.call_later(0.02, a.send_output, "out", pa.array([1]))
        second = await b.recv_async(timeout=20)
        return [first, second]

    first, second = asyncio.run(receive())
    assert first == {"kind": "external", "value": "x"}
    assert second["type"] == "INPUT"
