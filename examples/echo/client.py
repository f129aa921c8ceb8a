"""Sends arrays of several types with metadata; prints what comes back."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dora import Node

QUESTIONS: list[tuple[Any, dict[str, Any]]] = [
    (b"some bytes", {"name": "bytes", "urgent": True}),
    (pa.array([1.5, None, 3.5]), {"name": "floats with a gap", "scale": 0.5}),
    (pa.array([{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]), {"name": "structs", "shape": [2, 2]}),
    (pa.array([["a"], [], ["b", "c"]]), {"name": "lists", "labels": ["left", "right"]}),
    (pa.array(["on", "off", "on"]).dictionary_encode(), {"name": "dictionary", "count": 3}),
    (
        pa.array([], pa.int16()),
        {"name": "nothing", "taken": datetime(2026, 1, 2, 3, 4, tzinfo=UTC)},
    ),
]

node = Node()
for data, metadata in QUESTIONS:
    node.send_output("question", data, metadata)
    event = node.next(timeout=10)
    if event is None or event["type"] != "INPUT":
        raise SystemExit(f"no answer: {event}")
    received = event["metadata"]
    same = event["value"].equals(pa.array(data, pa.uint8()) if isinstance(data, bytes) else data)
    extra = {key: value for key, value in received.items() if key not in ("name", "timestamp")}
    print(f"{received['name']}: {event['value'].type}, same: {same}, metadata: {extra}")
