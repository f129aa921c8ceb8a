"""`MockNode`: what a node under test is given, and what is kept of it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dora.testing import MockNode
from dora_node_api import Node, events


def test_inputs_then_stop_then_nothing() -> None:
    metadata = {"k": 1}
    node = MockNode([("a", pa.array([1])), ("b", pa.array([2]))], metadata=metadata)
    first, second, stop = node
    assert first["type"] == "INPUT"
    assert first["id"] == "a"
    assert first["value"].to_pylist() == [1]
    first["metadata"]["k"] = 2
    assert second["metadata"] == metadata == {"k": 1}
    assert stop == {"type": "STOP", "id": "ALL_INPUTS_CLOSED"}
    assert node.next() is None
    assert node.next(timeout=1) is None
    assert list(node) == []


def test_whole_events_and_looking() -> None:
    node = MockNode([{"type": "STOP", "id": "MANUAL"}])
    assert not node.is_empty()
    assert node.drain() == [{"type": "STOP", "id": "MANUAL"}]
    assert node.is_empty()
    assert node.try_recv() is None


def test_async() -> None:
    async def main() -> tuple[list[str], object]:
        node = MockNode([("a", 1), ("b", 2)])
        event = await node.recv_async()
        return [e["type"] async for e in node], event and event["id"]

    assert asyncio.run(main()) == (["INPUT", "STOP"], "a")


def test_outputs_and_logs_are_kept() -> None:
    node = MockNode()
    node.send_output("out", b"1", {"k": 1})
    with node.send_output_raw("out", 2) as buffer:
        np.frombuffer(buffer, np.uint8)[:] = 7
    handler = node.send_output_raw("out", 1)
    with pytest.raises(ZeroDivisionError), handler:
        raise ZeroDivisionError
    handler.as_memoryview()[0] = 65
    handler.send()
    with pytest.raises(RuntimeError, match="already been sent"):
        handler.send()
    assert node.outputs == {"out": [b"1", b"\x07\x07", b"A"]}
    assert node.output_metadata["out"][0] == {"k": 1}
    node.log_warn("careful")
    assert node.logs == [{"level": "warn", "message": "careful", "target": None, "fields": {}}]


def test_services() -> None:
    node = MockNode([("tick", 1)], service_responses={"ask": ["answer"]})
    request = node.send_service_request("ask", b"question")
    node.send_service_request("ask", b"another")
    kinds = [(event["type"], event.get("id")) for event in node.drain()]
    assert kinds == [("INPUT", "tick"), ("INPUT", "ask"), ("STOP", "ALL_INPUTS_CLOSED")]
    node.send_service_response("reply", b"r", {"request_id": request})
    assert node.service_responses_sent[0]["request_id"] == request
    assert node.outputs == {"ask": [b"question", b"another"], "reply": [b"r"]}
    assert node.output_metadata["ask"][0] == node.output_metadata["reply"][0]
    assert node.output_metadata["ask"][0] == {"request_id": request}


def test_typed_events() -> None:
    stream = MockNode([("a", 1)]).events()
    assert list(stream) == [events.InputEvent("a", 1, {}), events.Stop("ALL_INPUTS_CLOSED")]


def test_a_mock_node_is_a_node() -> None:
    node: Node = MockNode(dataflow_id="d", dataflow_descriptor={"nodes": []}, is_restart=True)
    assert (node.node_id, node.dataflow_id(), node.restart_count()) == ("mock", "d", 1)
    assert (node.dataflow_descriptor(), node.is_restart()) == ({"nodes": []}, True)
    with pytest.warns(UserWarning, match="without a request_id"):
        node.send_service_response("reply", b"", {})


@pytest.mark.parametrize("inputs", ["abc", [1], [("a", 1, {})], {"ab": 1}, [(3, 1)]])
def test_invalid_inputs(inputs: Any) -> None:
    with pytest.raises(TypeError, match="pairs of an input id and its data"):
        MockNode(inputs)


def test_an_input_may_have_metadata_of_its_own() -> None:
    own = {"type": "INPUT", "id": "a", "value": 1, "metadata": {"k": 1}}
    bare = {"type": "INPUT", "id": "a", "value": 2}
    node = MockNode([own, bare, ("a", 3)], metadata={"k": 0})
    assert [event["metadata"]["k"] for event in node.drain()[:3]] == [1, 0, 0]


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({"id": "a", "value": 1}, "event 1 of MockNode has no key `type`"),
        ({"type": "INPUT", "id": "a", "data": 1}, "event 1 of MockNode has no key `value`"),
        ({"type": "INPUT", "value": 1}, "event 1 of MockNode has no key `id`"),
        (
            {"type": "INPUT", "id": "a", "value": 1, "metadata": [1]},
            "event 1 of MockNode: key `metadata` must be a dict, not list",
        ),
    ],
)
def test_the_key_of_an_invalid_event_is_named(event: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        MockNode([("a", 1), event])


@pytest.mark.parametrize("data", [[1], "text", None, 3, pa.table({"a": [1]})])
def test_data_that_a_node_cannot_send_is_refused(data: object) -> None:
    node = MockNode()
    with pytest.raises(RuntimeError, match="output `out`"):
        node.send_output("out", data)
    with pytest.raises(RuntimeError, match="keys must be str"):
        node.send_output("out", b"", {1: 2})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="timeout"):
        node.next(timeout=-1)
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None, not '1'"):
        node.next(timeout="1")  # type: ignore[arg-type]
    assert node.outputs == {}


def test_outputs_are_recorded_as_they_were_sent() -> None:
    node, frame, text = MockNode(), np.zeros(2), bytearray(b"a")
    for value in (1, 2):
        frame[:] = value
        text[0] = value
        node.send_output("frame", frame)
        node.send_output("text", text)
    assert [list(sent) for sent in node.outputs["frame"]] == [[1, 1], [2, 2]]
    assert node.outputs["text"] == [b"\x01", b"\x02"]


def test_values_of_extensions() -> None:
    node = MockNode()
    node.extension_store("ns", "a", b"1")
    node.extension_store("ns", "b", bytearray(b"2"))
    assert node.extension_load("ns", "a") == b"1"
    assert node.extension_load("ns", "b", remove=True) == b"2"
    assert node.extension_load("ns", "b") is None
    node.extension_drop("ns", "absent")
    node.extension_drop("ns", "a")
    assert node.drain_dropped_extension_keys("other") == []
    assert node.drain_dropped_extension_keys("ns") == ["b", "a"]
    assert node.drain_dropped_extension_keys("ns") == []


def test_requests_to_the_dataflow_are_recorded() -> None:
    node = MockNode()
    node.close_outputs(["one", "two"])
    node.close_outputs("out")
    node.stop_dataflow("enough")
    assert (node.closed_outputs, node.stop_reasons) == (["one", "two", "out"], ["enough"])
