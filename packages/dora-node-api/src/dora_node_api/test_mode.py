"""A real `Node()` without a runner: events from a file, outputs to a file (DORA_TEST_WITH_INPUTS).

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

from dora_node_api.arrow import decode_metadata, encode_metadata
from dora_node_api.backend import Backend, timed_out, until
from dora_node_api.control import InputConfig, NodeConfig
from dora_node_api.errors import InvalidData, SetUpError
from dora_node_api.json_values import array_from_json, array_to_json, dumps
from dora_node_api.log_lines import entry_line, write_line

if TYPE_CHECKING:
    from dora_node_api.session import Event
    from dora_node_api.transport.samples import Sample

OUTPUTS_VARIABLE = "DORA_TEST_WRITE_OUTPUTS_TO"
NO_OFFSET_VARIABLE = "DORA_TEST_NO_OUTPUT_TIME_OFFSET"


def open_test(path: str, environ: Mapping[str, str]) -> TestBackend:
    """The backend for a file of events. Raises SetUpError naming what is wrong in the file."""
    source = Path(path)
    try:
        values = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise SetUpError(f"DORA_TEST_WITH_INPUTS={path}: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("events"), list):
        raise SetUpError(f"{path}: expected an object with `id` and a list `events`")
    events = []
    for number, written in enumerate(values["events"]):
        try:
            events.append((float(written.get("time_offset_secs", 0.0)), _event(written)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SetUpError(f"{path}: event {number}: {error}") from error
    outputs = Path(environ.get(OUTPUTS_VARIABLE) or source.with_name("outputs.jsonl"))
    with_times = environ.get(NO_OFFSET_VARIABLE, "") in ("", "0", "false")
    return TestBackend(_config(values), events, outputs, with_times=with_times)


def _config(values: Mapping[str, Any]) -> NodeConfig:
    inputs = []
    for name, source in dict(values.get("inputs") or {}).items():
        options = source if isinstance(source, dict) else {"source": source}
        inputs.append(
            InputConfig(
                id=name,
                source=str(options.get("source", "")),
                queue_size=options.get("queue_size", 10),
            )
        )
    return NodeConfig(
        dataflow_id=str(uuid.uuid4()),
        node_id=str(values.get("id", "test")),
        inputs=tuple(inputs),
        outputs=tuple(values.get("outputs") or ()),
    )


def _event(written: Mapping[str, Any]) -> Event:
    match written["type"]:
        case "Input":
            metadata = dict(written.get("metadata") or {})
            # The peer's recordings keep the sender's metadata one level down.
            metadata = dict(metadata.get("parameters", metadata))
            return {
                "type": "INPUT",
                "id": str(written["id"]),
                "value": array_from_json(written.get("data"), written.get("data_type")),
                "metadata": {key: _parameter(value) for key, value in metadata.items()},
                "kind": "dora",
            }
        case "InputClosed":
            return {"type": "INPUT_CLOSED", "id": str(written["id"]), "kind": "dora"}
        case "Stop":
            return {"type": "STOP", "id": str(written.get("id", "MANUAL")), "kind": "dora"}
        case "AllInputsClosed":
            return {"type": "STOP", "id": "ALL_INPUTS_CLOSED", "kind": "dora"}
        case other:
            raise ValueError(f"unknown type {other!r}; expected Input, InputClosed or Stop")


_TAGS = ("Bool", "Integer", "Float", "String", "ListInt", "ListFloat", "ListString", "Timestamp")


def _parameter(written: Any) -> Any:
    """A value of the metadata, plain or with its type as files for the peer have it.

    Those write `{"Integer": 1}`, `{"ListString": ["a"]}`, `{"Timestamp": "2026-01-01T00:00:00Z"}`.
    """
    if isinstance(written, Mapping) and len(written) == 1:
        tag, value = next(iter(written.items()))
        if tag == "Timestamp":
            return datetime.fromisoformat(value).astimezone(UTC)
        if tag in _TAGS:
            return value
    return written


class TestBackend(Backend):
    """Plays the events at their times and writes the outputs down."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

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
        self._said: set[str] = set()
        self._path = outputs
        try:
            outputs.write_bytes(b"")
        except OSError as error:
            raise SetUpError(f"the outputs of the test cannot be written: {error}") from error

    @property
    def ended(self) -> bool:
        return self._next >= len(self._events)

    def next_event(self, timeout: float | None) -> Event | None:
        deadline = until(timeout)
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
        with self._lock, self._path.open("a") as file:
            file.write(dumps(line) + "\n")

    def allocate_sample(self, output: str, nbytes: int, metadata: Mapping[str, Any]) -> Sample:
        raise NotImplementedError(
            "send_output_raw needs a runner: it fills shared memory. Use send_output in tests"
        )

    def warn(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            write_line(entry_line(self.config.node_id, "warn", message, target="dora_node_api"))


def as_array(output: str, data: Any) -> Any:
    """What a receiver would get: the same rules as for real sending, without the memory."""
    import pyarrow

    if isinstance(data, pyarrow.Array):
        return data
    if isinstance(data, str | list | tuple | dict | int | float) or data is None:
        raise InvalidData(
            f"output `{output}`: {type(data).__name__} cannot be sent; give bytes, a pyarrow array"
            " (pyarrow.array(...)), a numpy array, or another buffer"
        )
    try:
        if hasattr(data, "dtype"):
            return pyarrow.array(data.reshape(-1))
        return pyarrow.array(memoryview(data).cast("B"), type=pyarrow.uint8())
    except (TypeError, ValueError, pyarrow.ArrowException) as error:
        raise InvalidData(f"output `{output}`: {type(data).__name__}: {error}") from error


def sent_metadata(output: str, metadata: Mapping[str, Any] | None, warn: Any) -> dict[str, Any]:
    """Metadata as a receiver would get it, without the time of sending. Raises InvalidData."""
    try:
        return decode_metadata(encode_metadata(metadata, on_warning=warn)) if metadata else {}
    except TypeError as error:
        raise InvalidData(f"output `{output}`: {error}") from error
