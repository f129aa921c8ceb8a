"""Messages contain the events that their sender had since its last one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dora_node_api.backends.backend import Backend, timed_out
from dora_node_api.backends.event_notes import MAX_EVENTS, note_events
from dora_node_api.data.metadata import (
    EVENTS_KEY,
    decode_metadata,
    encode_metadata,
    split_notes,
    utc_datetime,
)
from dora_node_api.protocol.messages import NodeConfig


class Scripted(Backend):
    """Returns given events and keeps metadata."""

    def __init__(self, *events: dict[str, Any] | None) -> None:
        self.config = NodeConfig(
            dataflow_id="", node_id="a", inputs=(), outputs=("out",), restart_count=2, descriptor={}
        )
        self._events = list(events)
        self.sent: list[Mapping[str, Any] | None] = []
        note_events(self)

    def next_event(self, timeout: float | None) -> dict[str, Any] | None:
        return self._events.pop(0)

    def poll_event(self) -> dict[str, Any] | None:
        return self._events.pop(0)

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        self.sent.append(metadata)

    def notes(self) -> list[Any]:
        """Return the notes of the last message, without times."""
        metadata = self.sent[-1]
        assert metadata is not None
        number, *notes = json.loads(metadata[EVENTS_KEY])
        return [number, *(note if note[0] == "START" else [note[0], *note[2:]] for note in notes)]


def event(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "id": name, "kind": "dora"}


def message(name: str, at: int) -> dict[str, Any]:
    return {**event("INPUT", name), "metadata": {"timestamp": utc_datetime(at)}}


def test_events_since_the_last_message() -> None:
    backend = Scripted(
        message("scan", 5_000), message("tick", 7_999), event("INPUT_CLOSED", "scan"),
        timed_out(0.2), None, None, message("scan", 9_000),
    )  # fmt: skip
    backend.next_event(None)
    backend.next_event(None)
    backend.send("out", b"", {"a": 1})
    assert backend.notes() == [0, ["START", 2], ["INPUT", "scan", 5_000], ["INPUT", "tick", 7_000]]
    assert backend.sent[-1] is not None
    assert backend.sent[-1]["a"] == 1
    backend.send("out", b"", None)
    assert backend.notes() == [1]
    backend.next_event(None)
    backend.next_event(0.2)
    for _ in range(3):
        backend.poll_event()
    backend.send("out", b"", None)
    assert backend.notes() == [
        2,
        ["INPUT_CLOSED", event("INPUT_CLOSED", "scan")],
        ["TIMED_OUT", {}],
        ["EMPTY", 2],
        ["INPUT", "scan", 9_000],
    ]


def test_only_the_newest_of_many_events_are_kept() -> None:
    backend = Scripted(*(message("scan", 1000 * number) for number in range(MAX_EVENTS + 5)))
    for _ in range(MAX_EVENTS + 5):
        backend.next_event(None)
    backend.send("out", b"", None)
    notes = backend.notes()
    assert len(notes) == MAX_EVENTS + 1
    assert notes[-1] == ["INPUT", "scan", 1000 * (MAX_EVENTS + 4)]


def test_nodes_do_not_get_notes() -> None:
    encoded = encode_metadata({"a": 1, EVENTS_KEY: "[0]"})
    assert decode_metadata(encoded) == {"a": 1}
    assert split_notes(encoded) == (encode_metadata({"a": 1}), b"[0]")
    assert split_notes(encode_metadata({EVENTS_KEY: "[0]"})) == (b"", b"[0]")
    assert split_notes(encode_metadata({"a": 1})) == (encode_metadata({"a": 1}), b"")
