"""Messages sent in a signal handler follow those of the interrupted call, at every point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from textwrap import dedent
from typing import Any

import pyarrow as pa
import pytest
from support.fake_runner import FakeRunner
from support.simulation.stepping import Steps
from support.waiting import wait_until

from dora_node_api import Node
from dora_node_api.protocol.messages import CloseOutputs
from dora_node_api.protocol.reentry import Reentry

Open = Callable[[str], Node]


def numbers(node: Node) -> dict[str, list[int]]:
    """Return the waiting numbers of each input of a node."""
    found: dict[str, list[int]] = {}
    while (event := node.try_recv()) is not None:
        assert event["type"] == "INPUT", event
        found.setdefault(event["id"], []).append(event["value"][0].as_py())
    return found


def send_raw(node: Node, number: int) -> None:
    with node.send_output_raw("out", 1) as buffer:
        memoryview(buffer)[0] = number


SENDS: dict[str, Callable[[Node, int], None]] = {
    "small": lambda node, number: node.send_output("out", pa.array([number], pa.uint8())),
    "raw": send_raw,
    "large": lambda node, number: node.send_output("out", bytes([number]) * (5 << 20)),
}


@pytest.mark.parametrize("policy", ["drop_oldest", "backpressure"])
@pytest.mark.parametrize("kind", SENDS)
def test_a_handler_may_send_at_every_point_of_a_send(
    runner: FakeRunner, open_node: Open, kind: str, policy: str
) -> None:
    runner.connect("a/out", "b/same", queue_size=50, queue_policy=policy)
    runner.connect("a/other", "b/other", queue_size=50, queue_policy=policy)
    a, b = open_node("a"), open_node("b")
    send = SENDS[kind]

    def handler() -> None:
        changed = bytearray([101])
        a.send_output("out", changed)
        changed[0] = 0
        send_raw(a, 102)
        a.send_output("other", b"\x67")
        a.log("info", "handled")

    send(a, 1)
    for stop in count(1):
        steps = Steps(("dora_node_api",), stop, handler, signals=True)
        numbers(b)
        steps.run(lambda: send(a, 1))
        send(a, 2)
        got = numbers(b)
        if steps.count < stop:
            break
        assert got["other"] == [103], steps.at
        assert [n for n in got["same"] if n > 100] == [101, 102], steps.at
        assert [n for n in got["same"] if n < 100] == [1, 2], steps.at
    assert stop > 10


def test_messages_of_a_handler_follow_the_send_that_waits_for_room(
    runner: FakeRunner, open_node: Open
) -> None:
    edge = runner.connect("a/out", "b/in", queue_size=1, queue_policy="backpressure")
    b = open_node("b")
    code = """
        import signal
        from dora import Node
        node = Node()
        def handler(number, frame):
            node.send_output("out", b"\\x67")
            node.send_output("out", b"\\x68")
            print("handled", flush=True)
        signal.signal(signal.SIGUSR1, handler)
        node.send_output("out", b"\\x01")
        node.send_output("out", b"\\x02")
        node.send_output("out", b"\\x03")
    """
    environment = {**os.environ, **runner.environment("a")}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", dedent(code)], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        wait_until(lambda: edge.keeper.statistics().blocked, what="the second send waits")
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"handled\n"
        got = [b.next(timeout=60)["value"][0].as_py() for _ in range(5)]  # type: ignore[index]
        assert process.wait(60) == 0
    assert got == [1, 2, 103, 104, 3]


def test_a_handler_may_close_outputs_at_every_point_of_a_send(
    runner: FakeRunner, open_node: Open
) -> None:
    """The runner closes an output at once, so a later message would be lost."""
    runner.add_node("a", outputs=("out",))
    edge = runner.connect("a/out", "b/in", queue_size=50)
    a, b = open_node("a"), open_node("b")
    backend: Any = a._backend
    sent: list[int] = []

    send = backend._connection.send

    def note(message: object, descriptors: tuple[int, ...] = ()) -> None:
        if isinstance(message, CloseOutputs):
            sent.append(edge.keeper.ends.depth())
        else:
            send(message, descriptors)

    backend._connection.send = note
    for stop in count(1):
        backend._outputs._open = frozenset({"out"})
        sent.clear()
        numbers(b)
        steps = Steps(("dora_node_api",), stop, lambda: a.close_outputs("out"), signals=True)
        steps.run(lambda: a.send_output("out", b"\x01"))
        if steps.count < stop:
            break
        # Before the send began, after it, or it found the output closed.
        arrived = numbers(b).get("in", [])
        assert sent[-1] == len(arrived) or not arrived, steps.at
    assert stop > 10


def test_a_handler_may_send_at_every_point_of_taking_a_route(
    runner: FakeRunner, open_node: Open
) -> None:
    runner.connect("a/out", "b/in", queue_size=50)
    a, b = open_node("a"), open_node("b")
    backend: Any = a._backend
    for stop in count(1):
        runner.connect("a/new", f"b/new{stop}")
        numbers(b)
        backend._connection.pumped = 0  # it looks at the control socket
        steps = Steps(("dora_node_api",), stop, lambda: a.send_output("out", b"\x01"), signals=True)
        steps.run(a.try_recv)
        got = numbers(b)
        if steps.count < stop or stop > 60:
            break
        assert got == {"in": [1]}, steps.at
    assert stop > 10


def test_errors_of_deferred_calls_are_reported_and_the_others_made() -> None:
    errors: list[Exception] = []
    calls: list[str] = []
    reentry = Reentry(errors.append, (ValueError,))

    def fail() -> None:
        raise ValueError("full")

    def outer() -> None:
        reentry.submit(fail)
        reentry.submit(lambda: calls.append("deferred"))
        calls.append("outer")

    reentry.call(outer)
    assert calls == ["outer", "deferred"]
    assert [str(error) for error in errors] == ["full"]
    with pytest.raises(ValueError, match="full"):
        reentry.submit(fail)
