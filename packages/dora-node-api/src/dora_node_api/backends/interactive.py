"""Backend of a node started by hand at a terminal: reads inputs and shows outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from dora_node_api.backends.backend import Backend
from dora_node_api.backends.test_mode import as_array, sent_metadata
from dora_node_api.data.json_values import array_from_json, array_to_json, dumps
from dora_node_api.protocol.messages import NodeConfig

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event

_INTRODUCTION = """\
No dataflow has started this node; type its inputs. An input is an id and its data as JSON, for
example:  image [1, 2, 3]
An empty line repeats the last input; `stop` or end-of-file (Ctrl-D) stops the node.
"""


class InteractiveBackend(Backend):
    """Each event is a line typed at the terminal."""

    def __init__(self, questions: TextIO, answers: TextIO) -> None:
        self.config = NodeConfig(dataflow_id="interactive", node_id="interactive")
        self._in = questions
        self._out = answers
        self._last: tuple[str, Any] | None = None
        self._ended = False
        self._show(_INTRODUCTION)

    def _show(self, text: str, end: str = "\n") -> None:
        self._out.write(text + end)
        self._out.flush()

    @property
    def ended(self) -> bool:
        return self._ended

    def next_event(self, timeout: float | None) -> Event | None:
        """Read lines until one is valid; the timeout is ignored."""
        while not self._ended:
            self._show("input: ", end="")
            line = self._in.readline()
            if not line or line.strip() == "stop":
                self._ended = True
                return {"type": "STOP", "id": "MANUAL", "kind": "dora"}
            try:
                return self._input(line.strip())
            except ValueError as error:
                self._show(f"invalid input: {error}")
        return None

    def _input(self, line: str) -> Event:
        if line:
            name, _, text = line.partition(" ")
            self._last = (name, json.loads(text) if text.strip() else None)
        if self._last is None:
            raise ValueError("type the id of an input, then its data as JSON")
        name, data = self._last
        return {
            "type": "INPUT",
            "id": name,
            "value": array_from_json(data),
            "metadata": {"timestamp": datetime.now(UTC)},
            "kind": "dora",
        }

    def poll_event(self) -> Event | None:
        return None

    def is_empty(self) -> bool:
        return True

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        shown = array_to_json(as_array(output, data))
        if kept := sent_metadata(output, metadata, self.warn):
            shown["metadata"] = kept
        self._show(f"output {output}: {dumps(shown)}")

    def warn(self, message: str) -> None:
        self._show(f"warning: {message}")
