"""Record a node's events for the file-driven test mode (DORA_WRITE_EVENTS_TO)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import Backend
from dora_node_api.data.json_values import array_to_json, dumps
from dora_node_api.errors import SetUpError
from dora_node_api.protocol.messages import NodeConfig

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event

_TYPES = {"INPUT": "Input", "INPUT_CLOSED": "InputClosed", "STOP": "Stop"}


def record_events(backend: Backend, folder: str) -> None:
    """Write all later events of a backend to a file in `folder`. Raises SetUpError."""
    record = EventFile(backend.config, folder).record
    next_event, poll_event = backend.next_event, backend.poll_event
    backend.next_event = lambda timeout: record(next_event(timeout))  # type: ignore[method-assign]
    backend.poll_event = lambda: record(poll_event())  # type: ignore[method-assign]


class EventFile:
    """The file `inputs-<node>.json`.

    It is complete JSON after each event, so that it is usable however the process ends.
    """

    def __init__(self, config: NodeConfig, folder: str) -> None:
        self._start = time.monotonic()
        self._path = Path(folder) / f"inputs-{config.node_id.replace('/', '_')}.json"
        head = {
            "id": config.node_id,
            "inputs": {entry.id: entry.source for entry in config.inputs},
            "outputs": list(config.outputs),
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(0o600)
            self._path.write_text("", encoding="utf-8")
        except OSError as error:
            raise SetUpError(
                f"DORA_WRITE_EVENTS_TO: {self._path} cannot be written: {error}"
            ) from error
        self._end = 0
        self._separator = ""
        self._append(json.dumps(head)[:-1] + ', "events": [')
        self._separator = "\n"

    def _append(self, text: str) -> None:
        """Write over the closing brackets, and close them again."""
        with self._path.open("r+", encoding="utf-8") as file:
            file.seek(self._end)
            file.write(self._separator + text)
            self._end = file.tell()
            file.write("\n]}\n")

    def record(self, event: Event | None) -> Event | None:
        """Add an event, if test files can contain it; return it."""
        if event is not None and (kind := _TYPES.get(event["type"])) is not None:
            written: dict[str, Any] = {
                "type": kind,
                "id": event["id"],
                "time_offset_secs": round(time.monotonic() - self._start, 6),
            }
            if kind == "Input":
                written |= array_to_json(event["value"])
                written["metadata"] = {
                    key: value for key, value in event["metadata"].items() if key != "timestamp"
                }
            self._append(dumps(written))
            self._separator = ",\n"
        return event
