"""`Node`, connected to a fake runner over real sockets, pipes and memory."""

from __future__ import annotations

import json
import math
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.fake_runner import DATAFLOW_ID, FakeRunner
from support.waiting import is_in, wait_until

from dora_node_api import InvalidData, Node, NodeClosed, events
from dora_node_api.ids import uuid7
from dora_node_api.protocol import frames, messages as control

Open = Callable[[str], Node]


@pytest.fixture
def pair(runner: FakeRunner, open_node: Open) -> tuple[Node, Node]:
    """Nodes `a` and `b`, connected by a/out -> b/in."""
    runner.connect("a/out", "b/in")
    return open_node("a"), open_node("b")


def take(node: Node) -> dict[str, Any]:
    """The next event, which must come within seconds."""
    event = node.next(timeout=60)
    assert event is not None
    assert event["type"] != "ERROR", event
    return event


# --- sending and receiving ---------------------------------------------------------------------


def test_a_message_arrives_as_it_was_sent(pair: tuple[Node, Node]) -> None:
    a, b = pair
    before = datetime.now(UTC)
    a.send_output("out", pa.array([1.5, None], pa.float32()), {"seq": 7, "frame": "base"})
    event = take(b)
    assert type(event) is dict
    assert {key: event[key] for key in ("type", "id", "kind")} == {
        "type": "INPUT",
        "id": "in",
        "kind": "dora",
    }
    assert event["value"].equals(pa.array([1.5, None], pa.float32()))
    assert event["metadata"].keys() == {"seq", "frame", "timestamp"}
    assert event["metadata"]["seq"] == 7
    assert before - timedelta(seconds=1) < event["metadata"]["timestamp"] <= datetime.now(UTC)
    assert event.get("error") is None


STRUCT = pa.array([{"x": 1, "tags": ["a", "b"]}, {"x": None, "tags": []}])


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"abc", pa.array([97, 98, 99], pa.uint8())),
        (b"", pa.array([], pa.uint8())),
        (bytearray(b"ab"), pa.array([97, 98], pa.uint8())),
        (memoryview(b"ab"), pa.array([97, 98], pa.uint8())),
        (np.arange(4, dtype=np.int16), pa.array([0, 1, 2, 3], pa.int16())),
        (np.array([[1, 2], [3, 4]], np.float32), pa.array([1, 2, 3, 4], pa.float32())),
        (pa.array(["x", "yy"]), pa.array(["x", "yy"])),
        (pa.array([[1], [], [2, 3]]), pa.array([[1], [], [2, 3]])),
        (STRUCT, STRUCT),
        (pa.array([]), pa.array([])),
        (pa.array([True, False, None])[1:], pa.array([False, None])),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.array(["a", "b", "a"])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_accepted_data(pair: tuple[Node, Node], sent: Any, expected: pa.Array) -> None:
    a, b = pair
    a.send_output("out", sent)
    value = take(b)["value"]
    if pa.types.is_dictionary(value.type):
        value = value.dictionary_decode()
    assert value.equals(expected), value


@pytest.mark.parametrize("data", [[1, 2], "text", 1, None, {"a": 1}, object()])
def test_refused_data_names_accepted_types(pair: tuple[Node, Node], data: Any) -> None:
    a, b = pair
    with pytest.raises(RuntimeError, match="out") as caught:
        a.send_output("out", data)
    assert isinstance(caught.value, InvalidData | TypeError)
    assert "pyarrow" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert len(shown.splitlines()) < 10, "the calling line and the sentence"
    assert b.try_recv() is None


def test_metadata(pair: tuple[Node, Node]) -> None:
    a, b = pair
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    sent = {
        "yes": True,
        "count": -(2**63),
        "ratio": 0.5,
        "word": "ö",
        "ints": [1, 2],
        "floats": (1.5, 2.0),
        "words": ["a"],
        "none": [],
        "moment": moment,
    }
    a.send_output("out", b"", sent)
    received = take(b)["metadata"]
    received.pop("timestamp")
    assert received == {**sent, "floats": [1.5, 2.0]}
    assert received["moment"].tzinfo is UTC


def test_metadata_of_other_types_arrives_as_text_with_a_warning(
    pair: tuple[Node, Node], runner: FakeRunner
) -> None:
    a, b = pair
    for _ in range(3):
        a.send_output("out", b"", {"nested": {"x": 1}, "nothing": None})
    metadata = take(b)["metadata"]
    assert metadata["nested"] == "{'x': 1}"
    assert metadata["nothing"] == "None"
    runner.wait_for("a", control.Log)
    logged = runner.messages("a", control.Log)
    assert len(logged) == 2
    with pytest.raises(RuntimeError, match="key"):
        a.send_output("out", b"", {1: 2})  # type: ignore[dict-item]


def test_forwarded_metadata_keeps_the_original_time(pair: tuple[Node, Node]) -> None:
    a, b = pair
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    a.send_output("out", b"", {"timestamp": moment})
    assert take(b)["metadata"] == {"timestamp": moment}
    a.send_output("out", b"", {"timestamp": 12})
    assert take(b)["metadata"] == {"timestamp": 12}


def test_undeclared_output_is_one_warning(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    for _ in range(3):
        a.send_output("nope", b"x")
    logged = runner.wait_for("a", control.Log)
    assert isinstance(logged, control.Log)
    assert logged.level == "warn"
    assert "`nope`" in logged.message
    assert "`out`" in logged.message
    a.send_output("out", b"x")
    take(b)
    assert len(runner.messages("a", control.Log)) == 1
    with pytest.raises(RuntimeError, match="nope"):
        a.send_output_raw("nope", 3)


def test_a_closed_output_is_not_called_undeclared(
    pair: tuple[Node, Node], runner: FakeRunner
) -> None:
    a, _ = pair
    a.close_outputs("out")
    a.send_output("out", b"x")
    logged = runner.wait_for("a", control.Log)
    assert isinstance(logged, control.Log)
    expected = "Output `out` was closed by this node."
    assert logged.message == f"{expected} Its messages are dropped."
    with pytest.raises(RuntimeError, match=expected):
        a.send_output_raw("out", 3)
    runner.send("a", control.SendOutput("out", 1, {}))

    def is_reported() -> bool:
        a.next(timeout=0.05)
        return any("published" in repr(log) for log in runner.messages("a", control.Log))

    wait_until(is_reported, what="the refusal of the published message")


def test_several_threads_may_send(runner: FakeRunner, open_node: Open) -> None:
    runner.connect("a/out", "b/in", queue_size=4000)
    a, b = open_node("a"), open_node("b")

    def send(thread: int) -> None:
        for number in range(500):
            a.send_output("out", pa.array([thread, number]), {"t": thread})

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    got: dict[int, list[int]] = {n: [] for n in range(4)}
    for _ in range(2000):
        thread_number, number = take(b)["value"].to_pylist()
        got[thread_number].append(number)
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(500)) for numbers in got.values())


def test_arrays_outlive_the_nodes(pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.send_output("out", np.arange(100_000))
    value = take(b)["value"]
    a.close()
    b.close()
    assert value.equals(pa.array(np.arange(100_000)))


# --- waiting -----------------------------------------------------------------------------------


def test_timeout_is_an_error_event(pair: tuple[Node, Node]) -> None:
    _, b = pair
    event = b.next(timeout=0.01)
    assert event is not None
    assert event["type"] == "ERROR"
    assert "Receiver timed out" in event["error"]
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match="timeout"):
            b.next(timeout=wrong)


def test_looking_without_waiting(pair: tuple[Node, Node]) -> None:
    a, b = pair
    assert b.try_recv() is None
    assert b.drain() == []
    assert b.is_empty()
    for number in range(3):
        a.send_output("out", pa.array([number]))
    assert not b.is_empty()
    first = b.try_recv()
    assert first is not None
    assert first["value"][0].as_py() == 0
    assert [event["value"][0].as_py() for event in b.drain()] == [1, 2]


def test_queue_of_one_holds_the_newest(runner: FakeRunner, open_node: Open) -> None:
    runner.connect("a/out", "b/in", queue_size=1)
    runner.connect("a/out", "b/five", queue_size=5)
    a, b = open_node("a"), open_node("b")
    for number in range(200):
        a.send_output("out", pa.array([number]))
    got: dict[str, list[int]] = {"in": [], "five": []}
    for event in b.drain():
        got[event["id"]].append(event["value"][0].as_py())
    assert got == {"in": [199], "five": [195, 196, 197, 198, 199]}
    runner.wait_for("a", control.Log)
    # A first drop is warned about once an edge; a queue of one is to keep the newest only.
    assert len(runner.messages("a", control.Log)) == 1


def test_timers_tick(runner: FakeRunner, open_node: Open) -> None:
    runner.add_node("a")
    runner.add_timer("a", "tick", 0.02)
    a = open_node("a")
    ticks = [take(a) for _ in range(10)]
    assert all(tick["id"] == "tick" and tick["value"].equals(pa.nulls(0)) for tick in ticks)
    stamps = [tick["metadata"]["timestamp"] for tick in ticks]
    gaps = [(after - before).total_seconds() for before, after in pairwise(stamps)]
    assert abs(median(gaps) - 0.02) < 0.001, gaps


def test_input_timeout(runner: FakeRunner, open_node: Open) -> None:
    runner.connect("a/out", "b/in", input_timeout=0.05)
    a, b = open_node("a"), open_node("b")
    a.send_output("out", b"1")
    assert take(b)["type"] == "INPUT"
    assert take(b) == {"type": "INPUT_CLOSED", "id": "in", "kind": "dora"}
    a.send_output("out", b"2")
    assert take(b) == {"type": "INPUT_RECOVERED", "id": "in", "kind": "dora"}
    assert take(b)["value"].to_pylist() == [50]


# --- how it ends -------------------------------------------------------------------------------


def test_natural_end(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    a.send_output("out", b"last")
    a.close()
    runner.edges[0].keeper.announce_closed()
    assert [event["type"] for event in b] == ["INPUT", "INPUT_CLOSED", "STOP"]
    assert b.next() is None
    assert b.next(timeout=1) is None
    assert b.try_recv() is None
    assert b.is_empty()
    with pytest.raises(RuntimeError, match="Channel is closed"):
        b.drain()


def test_crash_of_the_producer(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    a.send_output("out", b"last")
    runner.edges[0].keeper.announce_failed("exited with code 3")
    runner.edges[0].keeper.announce_closed()
    seen = list(b)
    assert [event["type"] for event in seen] == ["INPUT", "NODE_FAILED", "INPUT_CLOSED", "STOP"]
    assert seen[1]["value"] == {
        "source_node_id": "a",
        "error": "exited with code 3",
        "affected_input_ids": ["in"],
    }


def test_stop(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    _, b = pair
    runner.send("b", control.SetParam("speed", 0.4))
    runner.send("b", control.StopNode())
    assert list(b) == [
        {"type": "PARAM_UPDATE", "id": "speed", "value": 0.4, "kind": "dora"},
        {"type": "STOP", "id": "MANUAL", "kind": "dora"},
    ]


def test_messages_that_come_with_go(runner: FakeRunner, open_node: Open) -> None:
    runner.add_node("b")
    runner.auto_go = False
    together: list[control.Message] = [control.Go(1), control.SetParam("speed", 0.4)]
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(open_node, "b")
        runner.wait_connected("b")
        pieces = (piece for message in together for piece in frames.encode(message))
        runner.send_bytes("b", b"".join(piece.data for piece in pieces))
        node = opening.result()
    assert take(node) == {"type": "PARAM_UPDATE", "id": "speed", "value": 0.4, "kind": "dora"}


def test_a_busy_node_gets_stop(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    stopped = threading.Event()

    def flood() -> None:
        while not stopped.is_set():
            a.send_output("out", b"x")

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        take(b)
        runner.send("b", control.StopNode())
        last = [event["type"] for event in b][-1]
    finally:
        stopped.set()
        thread.join()
    assert last == "STOP"


def test_the_runner_is_gone(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    runner.disconnect("b")
    assert take(b) == {"type": "STOP", "id": "MANUAL", "kind": "dora"}
    assert b.next() is None
    runner.disconnect("a")
    for _ in range(3):
        a.send_output("out", b"without a reader")
    assert take(a)["type"] == "STOP"


def test_close_sends_leaving(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, _ = pair
    a.close()
    wait_until(lambda: runner.nodes["a"].left, what="a reports that it leaves")
    with pytest.raises(NodeClosed):
        a.send_output("out", b"")
    with pytest.raises(RuntimeError, match="closed"):
        a.next()
    a.close()


def test_a_dropped_node_leaves(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.add_node("a")
    monkeypatch.setenv("DORA_NODE_CONFIG", runner.environment("a")["DORA_NODE_CONFIG"])
    node = Node()
    del node
    wait_until(lambda: runner.nodes["a"].left, what="a reports that it leaves")


def test_close_ends_a_wait_in_another_thread(pair: tuple[Node, Node]) -> None:
    _, b = pair
    ends: list[object] = []
    thread = threading.Thread(target=lambda: ends.append(b.next()))
    thread.start()
    wait_until(lambda: is_in(thread.ident, "Waiter.wait"), what="b waits")
    b.close()
    thread.join(timeout=60)
    assert ends == [None]


# --- the control socket ------------------------------------------------------------------------


def test_garbage_is_an_error_event(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    _, b = pair
    body = b'{"kind": "stop", "reason": 5}'
    runner.send_bytes("b", frames.HEADER.pack(len(body), 0) + body)
    error, stop = b
    assert error["type"] == "ERROR"
    assert "stop.reason" in error["error"]
    assert stop["type"] == "STOP"


@pytest.mark.parametrize(
    "message",
    [
        control.Welcome(incarnation=1, config=control.NodeConfig("d", "n")),
        control.Go(1),
        control.SegmentUnknown(99),
        control.RemoveRoute(99),
        control.RemoveInput("nope"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_out_of_place_do_no_harm(
    pair: tuple[Node, Node], runner: FakeRunner, message: Any
) -> None:
    _, b = pair
    runner.send("b", message)
    runner.send("b", control.StopNode())
    assert [event["type"] for event in b if event["type"] != "ERROR"] == ["STOP"]


def test_rewiring_while_it_runs(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    runner.connect("a/out", "b/second")

    def received() -> list[str]:
        a.send_output("out", b"x")
        return [event["id"] for event in b.drain()]

    wait_until(lambda: {"in", "second"} <= set(received()), what="both inputs get it")
    runner.send("a", control.RemoveRoute(runner.edges[0].spec.queue))
    runner.send("b", control.RemoveInput("in"))
    assert take(b) == {"type": "INPUT_CLOSED", "id": "in", "kind": "dora"}

    wait_until(lambda: received() == ["second"], what="only the second input gets it")


# --- services, samples, the rest ---------------------------------------------------------------


def test_services(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    request = a.send_service_request("out", pa.array([1]), {"x": 1})
    assert request[14] == "7"
    metadata = take(b)["metadata"]
    assert metadata["request_id"] == request
    assert metadata["x"] == 1
    a.send_service_request("out", b"", {"request_id": "mine"})
    assert take(b)["metadata"]["request_id"] != "mine"
    a.send_service_response("out", b"", {})
    a.send_service_response("out", b"", metadata)
    assert "request_id" not in take(b)["metadata"]
    assert take(b)["metadata"]["request_id"] == request
    wait_until(lambda: len(runner.messages("a", control.Log)) == 2, what="two warnings")


def test_requests_are_never_evicted(runner: FakeRunner, open_node: Open) -> None:
    runner.connect("a/out", "b/in", queue_size=2)
    a, b = open_node("a"), open_node("b")
    request = a.send_service_request("out", b"request")
    for _ in range(20):
        a.send_output("out", b"x")
    received = b.drain()
    assert received[0]["metadata"].get("request_id") == request
    assert len(received) == 3


def test_request_ids_sort_by_time() -> None:
    made = [uuid7() for _ in range(2000)]
    assert made == sorted(set(made))
    assert all(word[19] in "89ab" and word[14] == "7" and len(word) == 36 for word in made)


def test_samples(pair: tuple[Node, Node]) -> None:
    a, b = pair
    with a.send_output_raw("out", 4, {"k": 1}) as buffer:
        view = memoryview(buffer)
        view[:] = b"abcd"
        view.release()
    event = take(b)
    assert event["value"].equals(pa.array(list(b"abcd"), pa.uint8()))
    assert event["metadata"]["k"] == 1

    handler = a.send_output_raw("out", 3)
    assert handler.as_buffer() is handler.as_buffer()
    view = handler.as_memoryview()
    with pytest.raises(RuntimeError, match="open"):
        handler.send()
    view[:] = b"xyz"
    view.release()
    buffer = handler.as_buffer()
    handler.send()
    assert take(b)["value"].to_pylist() == list(b"xyz")
    with pytest.raises(RuntimeError, match="already been sent"):
        handler.send()
    with pytest.raises(RuntimeError, match="already been sent"):
        handler.as_memoryview()
    # Python 3.11 lets no class of ours be a buffer, and a released memoryview raises ValueError.
    with pytest.raises(BufferError if sys.version_info >= (3, 12) else ValueError):
        memoryview(buffer)


def test_a_buffer_can_be_filled_by_index_and_outlives_its_handler(pair: tuple[Node, Node]) -> None:
    a, b = pair
    with a.send_output_raw("out", 4) as buffer:
        buffer[:2] = b"ab"
        buffer[2] = buffer[3] = ord("z")
        assert len(buffer) == 4
        assert bytes(buffer[1:3]) == b"bz"
    assert bytes(take(b)["value"].to_numpy()) == b"abzz"
    handler = a.send_output_raw("out", 4)
    left = handler.as_buffer()
    del handler
    with pytest.raises(BufferError if sys.version_info >= (3, 12) else ValueError):
        memoryview(left)


@pytest.mark.parametrize("length", [-1, 1 << 70, 2.5, "5", None])
def test_an_invalid_length_is_named(pair: tuple[Node, Node], length: Any) -> None:
    with pytest.raises(InvalidData, match="the length must be an int"):
        pair[0].send_output_raw("out", length)


@pytest.mark.parametrize("metadata", ["text", 5, [("k", 1)]])
def test_metadata_must_be_a_mapping(pair: tuple[Node, Node], metadata: Any) -> None:
    a, b = pair
    sends: list[Callable[[], Any]] = [
        lambda: a.send_output("out", b"", metadata),
        lambda: a.send_output_raw("out", 1, metadata),
        lambda: a.send_service_request("out", b"", metadata),
        lambda: a.send_service_response("out", b"", metadata),
    ]
    for send in sends:
        with pytest.raises(InvalidData, match="pass a dict with str keys"):
            send()
    assert b.try_recv() is None


def test_a_sample_is_not_sent_when_its_block_raises(pair: tuple[Node, Node]) -> None:
    a, b = pair
    handler = a.send_output_raw("out", 2)
    with pytest.raises(ZeroDivisionError), handler:
        raise ZeroDivisionError
    assert b.try_recv() is None
    with handler as buffer:
        np.frombuffer(buffer, dtype=np.uint8)[:] = 9
    assert take(b)["value"].to_pylist() == [9, 9]
    with pytest.raises(RuntimeError):
        a.send_output_raw("out", -1)
    del handler
    a.send_output_raw("out", 10_000)  # dropped at once


def test_a_closed_node_sends_no_sample(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    handler = a.send_output_raw("out", 2)
    a.close()
    with pytest.raises(NodeClosed, match="`out`"):
        handler.send()


def test_a_second_node_of_an_id_is_another_handle(runner: FakeRunner, open_node: Open) -> None:
    runner.connect("a/out", "b/in")
    first, b, second = open_node("a"), open_node("b"), open_node("a")
    first.send_output("out", b"1")
    second.send_output("out", b"2")
    assert [take(b)["value"].to_pylist() for _ in range(2)] == [[49], [50]]
    runner.send("a", control.SetParam("speed", 1))
    assert take(second)["id"] == "speed"
    second.close()
    second.close()
    assert not runner.messages("a", control.NodeLeaving)
    with pytest.raises(NodeClosed):
        second.send_output("out", b"")
    first.send_output("out", b"3")
    assert take(b)["value"].to_pylist() == [51]
    del second
    first.close()
    runner.wait_for("a", control.NodeLeaving)


def test_two_handles_of_a_node_write_one_record(
    runner: FakeRunner, open_node: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORA_WRITE_EVENTS_TO", str(tmp_path / "events"))
    runner.connect("a/out", "b/in")
    a, first, second = open_node("a"), open_node("b"), open_node("b")
    for receiver in (first, second):
        a.send_output("out", b"x")
        take(receiver)
    second.close()
    a.send_output("out", b"x")
    take(first)
    first.close()
    kept = json.loads((tmp_path / "events" / "inputs-b.json").read_text())
    assert [event["type"] for event in kept["events"]] == ["Input"] * 3


def test_a_node_stays_in_its_process(pair: tuple[Node, Node]) -> None:
    with pytest.raises(TypeError, match="the one that made it"):
        pickle.dumps(pair[0])


def test_node_and_dataflow_properties(runner: FakeRunner, open_node: Open) -> None:
    descriptor = {"nodes": [{"id": "a", "path": "a.py"}]}
    runner.add_node("a", descriptor=descriptor, restart_count=2, outputs=("x",))
    runner.add_node("b", outputs=("out",))
    runner.connect("b/out", "a/in", queue_size=3, input_timeout=1.5)
    runner.connect("b/out", "a/plain")
    a = open_node("a")
    assert a.dataflow_descriptor() == descriptor
    assert a.dataflow_id() == DATAFLOW_ID
    assert a.node_config() == {
        "inputs": {
            "in": {"source": "b/out", "queue_size": 3, "input_timeout": 1.5},
            "plain": "b/out",
        },
        "outputs": ["x"],
    }
    assert a.is_restart()
    assert a.restart_count() == 2
    assert a.timestamp().tzinfo is UTC
    assert "`a`" in repr(a)


def test_typed_events(pair: tuple[Node, Node], runner: FakeRunner) -> None:
    a, b = pair
    a.send_output("out", pa.array([1]), {"k": 1})
    stream = b.events()
    first = next(stream)
    assert isinstance(first, events.InputEvent)
    assert first.value.to_pylist() == [1]
    assert first.timestamp.tzinfo is UTC
    runner.send("b", control.SetParam("k", 1))
    runner.send("b", control.DeleteParam("k"))
    runner.send("b", control.ReloadOperator("op"))
    assert next(stream) == events.ParamUpdated("k", 1)
    assert next(stream) == events.ParamDeleted("k")
    assert next(stream) == events.Reload("op")
    runner.edges[0].keeper.announce_failed("no")
    assert next(stream) == events.NodeFailed("a", "no", ("in",))
    runner.send("b", control.StopNode())
    assert list(stream) == [events.Stop("MANUAL")]
