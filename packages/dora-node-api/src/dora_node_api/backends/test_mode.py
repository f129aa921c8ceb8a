"""Test mode: events from a file, outputs to a file, no runner (DORA_TEST_WITH_INPUTS).

The file is `{"id": ..., "inputs": {...}, "outputs": [...], "events": [...]}`; an event has a `type`
(`Input`, `InputClosed`, `Stop`), a `time_offset_secs`, and for inputs `id`, `data`, `data_type` and
`metadata`. Outputs become lines of JSON: `id`, `time_offset_secs`, `data`, `data_type`, `metadata`.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import Backend, timed_out, until
from dora_node_api.data.arrow import decode, encode
from dora_node_api.data.json_values import array_from_json, array_to_json, dumps
from dora_node_api.data.metadata import decode_metadata, encode_metadata
from dora_node_api.errors import InvalidData, SetUpError
from dora_node_api.protocol.messages import InputConfig, NodeConfig

if TYPE_CHECKING:
    import pyarrow

    from dora_node_api.protocol.session import Event

OUTPUTS_VARIABLE = "DORA_TEST_WRITE_OUTPUTS_TO"
NO_OFFSET_VARIABLE = "DORA_TEST_NO_OUTPUT_TIME_OFFSET"


def open_test(path: str, environ: Mapping[str, str]) -> TestBackend:
    """Return the backend for a file of events. Raises SetUpError for an invalid file."""
    source = Path(path)
    try:
        values = json.loads(source.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SetUpError(f"DORA_TEST_WITH_INPUTS={path}: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("events"), list):
        raise SetUpError(f"{path}: expected an object with `id` and a list `events`")
    try:
        config = _config(values)
    except ValueError as error:
        raise SetUpError(f"{path}: {error}") from error
    events = []
    for number, written in enumerate(values["events"]):
        try:
            _expect(written, dict, "an object with `type`")
            events.append((_offset(written), _event(written)))
        except (ValueError, TypeError) as error:
            raise SetUpError(f"{path}: event {number}: {error}") from error
    outputs = Path(environ.get(OUTPUTS_VARIABLE) or source.with_name("outputs.jsonl"))
    if outputs.exists() and outputs.samefile(source):
        raise SetUpError(f"{OUTPUTS_VARIABLE}={outputs} is the file of inputs; set another file")
    with_times = environ.get(NO_OFFSET_VARIABLE, "") in ("", "0", "false")
    return TestBackend(config, events, outputs, with_times=with_times)


def _expect(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"expected {what}, found {dumps(value)[:80]}")
    return value


def _config(values: Mapping[str, Any]) -> NodeConfig:
    """Raises ValueError."""
    inputs = []
    written = values.get("inputs") or {}
    for name, source in _expect(written, dict, "`inputs` that map ids to sources").items():
        options = source if isinstance(source, dict) else {"source": source}
        queue_size = _expect(options.get("queue_size", 10), int, f"a number, {name}: `queue_size`")
        inputs.append(
            InputConfig(id=name, source=str(options.get("source", "")), queue_size=queue_size)
        )
    outputs = _expect(values.get("outputs") or [], list, "a list of `outputs`")
    return NodeConfig(
        dataflow_id=str(uuid.uuid4()),
        node_id=str(values.get("id", "test")),
        inputs=tuple(inputs),
        outputs=tuple(_expect(name, str, "texts in `outputs`") for name in outputs),
    )


def _offset(written: Mapping[str, Any]) -> float:
    offset = float(
        _expect(written.get("time_offset_secs", 0.0), (int, float), "`time_offset_secs` in seconds")
    )
    if not abs(offset) <= _MAX_OFFSET:
        raise ValueError(f"`time_offset_secs` must be a time in seconds, not {offset}")
    return offset


_MAX_OFFSET = 1e9
"""Largest accepted time in seconds; longer ones overflow system timers."""


def _input_id(written: Mapping[str, Any]) -> str:
    return str(_expect(written.get("id"), str, "the `id` of an input"))


def _event(written: Mapping[str, Any]) -> Event:
    """Raises ValueError."""
    match written.get("type"):
        case "Input":
            metadata = _expect(written.get("metadata") or {}, dict, "an object as `metadata`")
            # Recordings of dora-rs have the sender's metadata one level down.
            below = metadata.get("parameters", metadata)
            metadata = _expect(below, dict, "an object as `parameters`")
            return {
                "type": "INPUT",
                "id": _input_id(written),
                "value": array_from_json(written.get("data"), written.get("data_type")),
                "metadata": {key: _parameter(value) for key, value in metadata.items()},
                "kind": "dora",
            }
        case "InputClosed":
            return {"type": "INPUT_CLOSED", "id": _input_id(written), "kind": "dora"}
        case "Stop":
            return {"type": "STOP", "id": str(written.get("id", "MANUAL")), "kind": "dora"}
        case "AllInputsClosed":
            return {"type": "STOP", "id": "ALL_INPUTS_CLOSED", "kind": "dora"}
        case other:
            raise ValueError(f"unknown type {other!r}; expected Input, InputClosed or Stop")


_TAGS = ("Bool", "Integer", "Float", "String", "ListInt", "ListFloat", "ListString", "Timestamp")


def _parameter(written: Any) -> Any:
    """Return a value of the metadata, given plain or with its type as in files of dora-rs.

    Those have `{"Integer": 1}`, `{"ListString": ["a"]}`, `{"Timestamp": "2026-01-01T00:00:00Z"}`.
    """
    if isinstance(written, Mapping) and len(written) == 1:
        tag, value = next(iter(written.items()))
        if tag == "Timestamp":
            return datetime.fromisoformat(value).astimezone(UTC)
        if tag in _TAGS:
            return value
    return written


class TestBackend(Backend):
    """Returns the events at their times and writes the outputs to a file."""

    __test__ = False  # pytest would take it for a test class

    def __init__(
        self,
        config: NodeConfig,
        events: list[tuple[float, Event]],
        outputs: Path,
        *,
        with_times: bool,
    ) -> None:
        self.config = config
        self._events = sorted(events, key=lambda item: item[0])
        self._next = 0
        self._start = time.monotonic_ns()
        self._with_times = with_times
        self._lock = threading.Lock()
        self._path = outputs
        try:
            outputs.write_bytes(b"")
        except OSError as error:
            raise SetUpError(f"cannot write the outputs of the test: {error}") from error

    @property
    def ended(self) -> bool:
        return self._next >= len(self._events)

    def next_event(self, timeout: float | None) -> Event | None:
        deadline = None if timeout is None else until(timeout)
        while not self.ended:
            if (event := self.poll_event()) is not None:
                return event
            due = self._due()
            now = time.monotonic_ns()
            if deadline is not None and now >= deadline:
                return timed_out(timeout or 0.0)
            wait_until = due if deadline is None else min(due, deadline)
            time.sleep(max(0, wait_until - now) / 1e9)
        return None

    def poll_event(self) -> Event | None:
        with self._lock:
            if self.ended or self._due() > time.monotonic_ns():
                return None
            event = self._events[self._next][1]
            self._next += 1
            if event["type"] == "STOP":
                self._next = len(self._events)
        if event["type"] == "INPUT":
            event["metadata"].setdefault("timestamp", datetime.now(UTC))
        return event

    def is_empty(self) -> bool:
        return self.ended or self._due() > time.monotonic_ns()

    def deadline(self) -> int | None:
        return None if self.ended else self._due()

    def _due(self) -> int:
        return self._start + int(self._events[self._next][0] * 1e9)

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        line: dict[str, Any] = {"id": output}
        if self._with_times:
            line["time_offset_secs"] = (time.monotonic_ns() - self._start) / 1e9
        line |= array_to_json(as_array(output, data))
        if kept := sent_metadata(output, metadata, self.warn):
            line["metadata"] = kept
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(dumps(line) + "\n")


def as_array(output: str, data: Any) -> pyarrow.Array:
    """Return the array that a receiver would get, encoded and decoded in ordinary memory."""
    import pyarrow

    try:
        payload = encode(data)
    except TypeError as error:
        raise InvalidData(f"output `{output}`: {error}") from None
    memory = bytearray(payload.total)
    payload.write_into(memory)
    content = pyarrow.py_buffer(memory).slice(payload.data_offset, payload.nbytes)
    return decode(payload.descriptor, payload.layout, payload.length, payload.null_count, content)


def sent_metadata(output: str, metadata: Mapping[str, Any] | None, warn: Any) -> dict[str, Any]:
    """Return the metadata that a receiver would get, without timestamp. Raises InvalidData."""
    try:
        return decode_metadata(encode_metadata(metadata, on_warning=warn)) if metadata else {}
    except TypeError as error:
        raise InvalidData(f"output `{output}`: {error}") from None
