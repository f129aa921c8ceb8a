"""Record a node's events for the file-driven test mode (DORA_WRITE_EVENTS_TO)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import Backend
from dora_node_api.data.json_values import array_to_json, dumps
from dora_node_api.errors import SetUpError

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event
    from dora_node_api.transport.producer.blocks import Sample

_TYPES = {"INPUT": "Input", "INPUT_CLOSED": "InputClosed", "STOP": "Stop"}


class RecordingBackend(Backend):
    """Forwards to another backend and writes its events to `inputs-<node>.json`.

    The file is complete JSON after each event, so that it is usable however the process ends.
    """

    def __init__(self, inner: Backend, folder: str) -> None:
        self._inner = inner
        self._holders = 1
        self.config = inner.config
        self._start = time.monotonic()
        path = Path(folder) / f"inputs-{inner.config.node_id.replace('/', '_')}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            inner.close()
            raise SetUpError(f"DORA_WRITE_EVENTS_TO: {path} cannot be written: {error}") from error
        config = inner.config
        head = {
            "id": config.node_id,
            "inputs": {entry.id: entry.source for entry in config.inputs},
            "outputs": list(config.outputs),
        }
        self._file.write(json.dumps(head)[:-1] + ', "events": [')
        self._separator = "\n"
        self._finish()

    def _finish(self) -> None:
        """Close the brackets; the next event overwrites them."""
        place = self._file.tell()
        self._file.write("\n]}\n")
        self._file.flush()
        self._file.seek(place)

    def _record(self, event: Event | None) -> Event | None:
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
            self._file.write(self._separator + dumps(written))
            self._separator = ",\n"
            self._finish()
        return event

    @property
    def ended(self) -> bool:
        return self._inner.ended

    def next_event(self, timeout: float | None) -> Event | None:
        return self._record(self._inner.next_event(timeout))

    def poll_event(self) -> Event | None:
        return self._record(self._inner.poll_event())

    def is_empty(self) -> bool:
        return self._inner.is_empty()

    def fileno(self) -> int:
        return self._inner.fileno()

    def deadline(self) -> int | None:
        return self._inner.deadline()

    def waits(self, waiting: bool) -> None:
        self._inner.waits(waiting)

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        self._inner.send(output, data, metadata)

    def allocate_sample(self, output: str, nbytes: int, metadata: Mapping[str, Any]) -> Sample:
        return self._inner.allocate_sample(output, nbytes, metadata)

    def send_sample(self, output: str, sample: Sample, metadata: Mapping[str, Any]) -> None:
        self._inner.send_sample(output, sample, metadata)

    def warn(self, message: str) -> None:
        self._inner.warn(message)

    def close_outputs(self, outputs: tuple[str, ...]) -> None:
        self._inner.close_outputs(outputs)

    def stop_dataflow(self, reason: str) -> None:
        self._inner.stop_dataflow(reason)

    def share(self, path: str, node_id: str) -> bool:
        shared = self._inner.share(path, node_id)
        self._holders += shared
        return shared

    def leave(self) -> None:
        self._inner.leave()

    def close(self) -> None:
        self._inner.close()
        self._holders -= 1
        if self._holders <= 0:
            self._file.close()
