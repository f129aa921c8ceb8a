"""A signal handler raises at every step of a node's calls.

The node continues, or its next call raises NodeInterrupted. In both cases it can be closed, its
descriptors and memory are freed, and the node at the other end of the edge continues.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.fake_runner import FakeRunner, fake_runner
from support.simulation.stepping import Raised, Steps, raise_here
from support.waiting import wait_until

from dora_node_api import Node, NodeInterrupted
from dora_node_api.protocol import messages as control

PACKAGE = ("dora_node_api/",)
STRIDE = 3
"""Each run of the tests takes every third step."""


def open_node(runner: FakeRunner, node_id: str, monkeypatch: pytest.MonkeyPatch) -> Node:
    with monkeypatch.context() as patch:
        for name, value in runner.environment(node_id).items():
            patch.setenv(name, value)
        patch.setattr(
            "dora_node_api.logging.logging_bridge.install", lambda node_id, has_terminal: None
        )
        return Node()


def descriptors() -> set[int]:
    gc.collect()  # a mapping has a descriptor, and goes with its last user
    return {
        int(name) for name in os.listdir("/proc/self/fd") if Path("/proc/self/fd", name).exists()
    }


def raised_at(step: int, work: Callable[[], Any]) -> Steps:
    """Call with a signal handler that raises at the given step."""
    steps = Steps(PACKAGE, step, raise_here, signals=True)
    with suppress(Raised):
        steps.run(work)
    return steps


def usable(work: Callable[[], Any]) -> bool:
    """Whether a call works; the only other outcome is NodeInterrupted."""
    try:
        work()
    except NodeInterrupted as error:
        return "restart policy" not in str(error)
    return True


def received(node: Node) -> list[int]:
    return [e["value"][0].as_py() for e in node.drain() if e["type"] == "INPUT"]


class Bench:
    """Nodes `a` and `b` with an edge a/out -> b/in; one of them is interrupted and replaced."""

    def __init__(self, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
        self.runner = runner
        self.patch = monkeypatch
        runner.add_node("a")
        runner.add_node("b")
        self.gone: set[int] = set()
        self.descriptors = 0
        self.edge = runner.connect("a/out", "b/in", queue_size=5, queue_policy=policy)

    def open(self, node_id: str) -> Node:
        return open_node(self.runner, node_id, self.patch)

    def closed(self, node_id: str) -> None:
        """Wait for the end of a node's connection; the next process is another incarnation."""
        node = self.runner.nodes[node_id]
        wait_until(lambda: node.control is None, what="the end of the connection")
        self.gone.add(node.incarnation)
        node.incarnation += 1000

    def check_descriptors(self, steps: Steps, usable: bool) -> None:
        """Check that a usable node has lost no descriptor.

        Another node may lose those of the message that it was receiving.
        """
        now = len(descriptors())
        if self.descriptors:
            assert 0 <= now - self.descriptors <= (0 if usable else 4), steps.at
        self.descriptors = now

    def close_segments(self) -> None:
        """Close the segments of incarnations that ended, as a runner does once they were read."""
        for key in [key for key in self.runner.segments if key[0] in self.gone]:
            os.close(self.runner.segments.pop(key)[0])


@pytest.fixture(params=["drop_oldest", "backpressure"])
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    before = descriptors()
    with fake_runner(tmp_path) as runner:
        bench = Bench(runner, monkeypatch, request.param)
        yield bench
        vars(bench).clear()  # pytest keeps the fixture's value
    for lost in descriptors() - before:
        os.close(lost)


SENDS: dict[str, Callable[[Node], object]] = {
    "small": lambda node: node.send_output("out", pa.array([1], pa.uint8())),
    "large": lambda node: node.send_output("out", b"\x01" * (5 << 20)),
}


@pytest.mark.parametrize("kind", SENDS)
def test_signal_at_every_step_of_a_send(bench: Bench, kind: str) -> None:
    send = SENDS[kind]
    b = bench.open("b")
    outcomes = set()
    for step in count(1, STRIDE):
        a = bench.open("a")
        send(a)
        steps = raised_at(step, lambda a=a: send(a))  # type: ignore[misc]
        sent = usable(lambda a=a: send(a))  # type: ignore[misc]
        outcomes.add(sent)
        a.close()
        bench.closed("a")
        del a
        got = received(b)
        assert got in ([1, 1, 1], [1, 1]) if sent else got in ([1], [1, 1]), steps.at
        after = bench.open("a")
        send(after)
        assert received(b) == [1], steps.at
        after.close()
        bench.closed("a")
        del after
        bench.close_segments()
        bench.check_descriptors(steps, sent)
        if steps.count < step:
            break
    b.close()
    assert outcomes == {True, False}


def test_signal_at_every_step_of_a_receive(bench: Bench) -> None:
    a = bench.open("a")
    outcomes = set()
    for step in count(1, STRIDE):
        b = bench.open("b")
        a.send_output("out", b"\x07")
        taken: list[Any] = []
        steps = raised_at(step, lambda b=b, t=taken: t.append(b.next(20)))  # type: ignore[misc]
        a.send_output("out", b"\x08")
        got: list[int] = []
        kept = usable(lambda b=b, got=got: got.extend(received(b)))  # type: ignore[misc]
        outcomes.add(kept)
        if kept:
            assert [e["value"][0].as_py() for e in taken] + got == [7, 8], steps.at
        taken.clear()
        b.close()
        bench.closed("b")
        del b
        bench.edge.keeper.consumer_died()
        after = bench.open("b")
        a.send_output("out", b"\x09")
        assert received(after)[-1:] == [9], steps.at
        after.close()
        bench.closed("b")
        bench.edge.keeper.consumer_died()
        del after
        gc.collect()
        assert a._backend._connection.sender.held_bytes() == {}, steps.at  # type: ignore[attr-defined]
        bench.close_segments()
        bench.check_descriptors(steps, kept)
        if steps.count < step:
            break
    a.close()
    assert outcomes == {True, False}


@pytest.mark.parametrize("message", ["route", "input", "parameter", "published"])
def test_signal_at_every_step_of_a_control_message(bench: Bench, message: str) -> None:
    runner = bench.runner
    b = bench.open("b")
    outcomes = set()
    for step in count(1, STRIDE):
        a = bench.open("a")
        edge = None
        if message == "route":
            edge = runner.connect("a/out", "c/in")
        elif message == "input":
            edge = runner.connect("c/out", "a/in")
        elif message == "published":
            runner.send("a", control.SendOutput("out", 1, {}))
        else:
            runner.send("a", control.SetParam("k", 1))
        a._backend._connection.pumped = 0  # type: ignore[attr-defined]
        steps = raised_at(step, a.try_recv)
        kept = usable(lambda a=a: a.next(0))  # type: ignore[misc]
        outcomes.add(kept)
        a.close()
        bench.closed("a")
        del a
        if edge is not None:
            edge.keeper.close()
            runner.edges.remove(edge)
        received(b)
        bench.close_segments()
        bench.check_descriptors(steps, kept)
        if steps.count < step:
            break
    b.close()
    assert True in outcomes
