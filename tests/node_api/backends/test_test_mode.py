"""Real `Node()` objects without a runner: from a file, at a terminal, and recording a run."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.fake_runner import FakeRunner

from dora_node_api import Node
from dora_node_api.backends.interactive import InteractiveBackend
from dora_node_api.data.json_values import array_from_json, array_to_json, dumps
from dora_node_api.errors import SetUpError

EVENTS = [
    {"type": "Input", "id": "in", "data": [1, 2, 3], "time_offset_secs": 0.02},
    {
        "type": "Input",
        "id": "in",
        "data": [1.5, None],
        "data_type": "Float32",
        "metadata": {"k": 1},
    },
    {"type": "Input", "id": "in", "data": "hello", "time_offset_secs": 0.04},
    {"type": "InputClosed", "id": "in", "time_offset_secs": 0.05},
    {"type": "Stop", "time_offset_secs": 0.06},
]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "inputs.json"
    path.write_text(
        json.dumps({"id": "n", "inputs": {"in": "a/out"}, "outputs": ["out"], "events": EVENTS})
    )
    monkeypatch.setenv("DORA_TEST_WITH_INPUTS", str(path))
    return path


def test_metadata_may_have_types_as_in_files_of_dora_rs(inputs: Path) -> None:
    metadata = {
        "i": {"Integer": 3},
        "f": {"Float": 1.5},
        "b": {"Bool": True},
        "s": {"String": "x"},
        "l": {"ListString": ["q"]},
        "t": {"Timestamp": "2026-01-01T00:00:00Z"},
        "plain": 7,
    }
    events = [{"type": "Input", "id": "in", "data": [1], "metadata": metadata}]
    inputs.write_text(json.dumps({"id": "n", "inputs": {"in": "a/out"}, "events": events}))
    event = Node().next()
    assert event is not None
    event["metadata"].pop("timestamp")
    assert event["metadata"] == {
        "i": 3,
        "f": 1.5,
        "b": True,
        "s": "x",
        "l": ["q"],
        "t": datetime(2026, 1, 1, tzinfo=UTC),
        "plain": 7,
    }


def test_events_come_at_their_times_and_outputs_are_written(inputs: Path) -> None:
    node = Node()
    assert node.node_config() == {"inputs": {"in": "a/out"}, "outputs": ["out"]}
    seen = []
    for event in node:
        seen.append((event["type"], event["id"]))
        if event["type"] == "INPUT":
            event["metadata"].pop("timestamp")
            node.send_output("out", event["value"], event["metadata"])
    node.send_output("out", b"ab")
    assert seen == [("INPUT", "in")] * 3 + [("INPUT_CLOSED", "in"), ("STOP", "MANUAL")]
    assert node.next() is None
    lines = [
        json.loads(line) for line in (inputs.parent / "outputs.jsonl").read_text().split("\n")[:-1]
    ]
    assert lines[1].pop("time_offset_secs") >= 0.02
    assert lines[0]["metadata"] == {"k": 1}
    assert lines[1] == {"id": "out", "data": [1, 2, 3], "data_type": "Int64"}
    assert lines[2]["data"] == ["hello"]
    assert lines[3]["data"] == [97, 98]
    assert lines[3]["data_type"] == "UInt8"


def test_outputs_without_times_in_another_file(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = {"id": "n", "outputs": ["out"], "events": [{"type": "Stop", "time_offset_secs": 3600}]}
    inputs.write_text(json.dumps(late))
    own = inputs.parent / "own.jsonl"
    monkeypatch.setenv("DORA_TEST_WRITE_OUTPUTS_TO", str(own))
    monkeypatch.setenv("DORA_TEST_NO_OUTPUT_TIME_OFFSET", "1")
    node = Node("whatever")
    node.send_output("out", pa.array([{"x": 1}]))
    assert json.loads(own.read_text()) == {
        "id": "out",
        "data": [{"x": 1}],
        "data_type": {"Struct": [{"name": "x", "data_type": "Int64", "nullable": True}]},
    }
    with pytest.raises(RuntimeError, match="list"):
        node.send_output("out", [1])
    timed_out = node.next(timeout=0)
    assert timed_out is not None
    assert timed_out["type"] == "ERROR"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "inputs.json"),
        ("[]", "`events`"),
        ('{"events": [{"type": "Dance"}]}', "event 0: unknown type 'Dance'"),
        ('{"events": [{"type": "Input", "id": "x", "data": [1], "data_type": "Int7"}]}', "Int7"),
        ('{"events": [{"type": "Input", "id": "x", "data": ["a"], "data_type": "Int8"}]}', "event"),
        ('{"events": ["x"]}', "event 0: expected an object with `type`, found"),
        ('{"events": [{}]}', "event 0: unknown type None; expected Input"),
        ('{"events": [{"type": "Input"}]}', "event 0: expected the `id` of an input, found null"),
        ('{"events": [{"type": "Stop", "time_offset_secs": NaN}]}', "a time in seconds, not nan"),
        ('{"events": [{"type": "Stop", "time_offset_secs": "1"}]}', "`time_offset_secs` in sec"),
        ('{"events": [{"type": "Input", "id": "x", "metadata": 3}]}', "an object as `metadata`"),
        ('{"events": [], "inputs": ["x"]}', "`inputs` that map ids to sources"),
        ('{"events": [], "inputs": {"x": {"queue_size": "y"}}}', "`queue_size`"),
        ('{"events": [], "outputs": "squared"}', "a list of `outputs`, found"),
        ('{"events": [], "outputs": [1]}', "texts in `outputs`"),
        ('{"events": ' + "[" * 100_000, "recursion"),
    ],
)
def test_files_that_cannot_be_used(inputs: Path, text: str, problem: str) -> None:
    inputs.write_text(text)
    with pytest.raises(SetUpError, match=problem):
        Node()


def test_the_file_of_inputs_is_not_overwritten(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inputs.read_text()
    way_around = inputs.parent / ".." / inputs.parent.name / inputs.name
    monkeypatch.setenv("DORA_TEST_WRITE_OUTPUTS_TO", str(way_around))
    with pytest.raises(SetUpError, match="is the file of inputs"):
        Node()
    assert inputs.read_text() == before


def test_outputs_are_written_as_a_reader_gets_them(inputs: Path) -> None:
    inputs.write_text("\ufeff" + json.dumps({"outputs": ["out"], "events": []}), encoding="utf-8")
    node = Node()
    node.send_output("out", np.arange(2, dtype=">i4"))
    node.send_output("out", memoryview(b"abcd")[::2])
    node.send_output("out", pa.record_batch({"a": [1]}))
    with node.send_output_raw("out", 2) as buffer:
        buffer[:] = b"AB"
    with pytest.raises(RuntimeError, match="one by one"):
        node.send_output("out", pa.table({"a": [1]}))
    lines = (inputs.parent / "outputs.jsonl").read_text().splitlines()
    assert [json.loads(line)["data"] for line in lines] == [[0, 1], [97, 99], [{"a": 1}], [65, 66]]


def test_a_run_can_be_recorded_and_played_again(
    runner: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.connect("a/out", "b/in")
    monkeypatch.setenv("DORA_NODE_CONFIG", runner.environment("a")["DORA_NODE_CONFIG"])
    monkeypatch.setenv("DORA_WRITE_EVENTS_TO", str(tmp_path / "events"))
    a = Node()
    monkeypatch.setenv("DORA_NODE_CONFIG", runner.environment("b")["DORA_NODE_CONFIG"])
    b = Node()
    sent = [pa.array([1, 2]), pa.array([{"x": [1.5], "y": "z"}]), pa.array(["a", None])]
    for array in sent:
        a.send_output("out", array, {"k": 1})
    runner.edges[0].keeper.announce_closed()
    kinds = [event["type"] for event in b]
    a.close()
    b.close()
    monkeypatch.delenv("DORA_NODE_CONFIG")
    monkeypatch.delenv("DORA_WRITE_EVENTS_TO")
    monkeypatch.setenv("DORA_TEST_WITH_INPUTS", str(tmp_path / "events" / "inputs-b.json"))
    played = list(Node())
    assert [event["type"] for event in played] == kinds
    assert [event["value"] for event in played if event["type"] == "INPUT"] == sent
    assert played[0]["metadata"]["k"] == 1
    assert played[-1]["id"] == "ALL_INPUTS_CLOSED"


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None], pa.uint16()),
        pa.array([[1], None, [2, 3]], pa.list_(pa.int8())),
        pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        pa.array([{"a": {"b": True}}]),
        pa.nulls(2),
        pa.array(["x"], pa.large_string()),
        pa.array([b"\xff\x00", None]),
        pa.array([b"ab"], pa.binary(2)),
        pa.array([{"a": [b"x"], "t": datetime(2026, 1, 2, tzinfo=UTC)}]),
        pa.array([1, None], pa.timestamp("ns")),
        pa.array([1], pa.timestamp("us", "Europe/Berlin")),
        pa.array([1], pa.date32()),
        pa.array([1], pa.time32("ms")),
        pa.array([1], pa.time64("ns")),
        pa.array([1], pa.duration("ns")),
        pa.array([Decimal("1.50")], pa.decimal128(5, 2)),
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.array([[("k", b"v")], None], pa.map_(pa.string(), pa.binary())),
    ],
    ids=lambda array: str(array.type),
)
def test_arrays_survive_json(array: pa.Array) -> None:
    written: dict[str, Any] = json.loads(dumps(array_to_json(array)))
    assert array_from_json(written["data"], written["data_type"]).equals(array)


def test_a_terminal_plays_the_inputs() -> None:
    shown = io.StringIO()
    backend = InteractiveBackend(io.StringIO("tick\nimage [1, 2]\nwhat [\n\nstop\n"), shown)
    first, second, again, stop = (backend.next_event(None) for _ in range(4))
    assert first is not None
    assert second is not None
    assert again is not None
    assert (first["id"], len(first["value"])) == ("tick", 0)
    assert second["value"].to_pylist() == [1, 2]
    assert again["id"] == "image"  # an empty line repeats the last one that was understood
    assert stop == {"type": "STOP", "id": "MANUAL", "kind": "dora"}
    assert backend.next_event(None) is None
    backend.send("out", pa.array([1]), {"k": 1})
    assert 'output out: {"data":[1],"data_type":"Int64","metadata":{"k":1}}' in shown.getvalue()
    assert "invalid input" in shown.getvalue()
