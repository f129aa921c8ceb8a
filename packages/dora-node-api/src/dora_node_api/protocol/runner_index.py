"""`index.json` in the directory of a runner, by which nodes and daemons find it.

A reader ignores unknown keys, so only a change of the meaning of a key needs a new FORMAT.
"""

import json
from pathlib import Path

from dora_node_api.errors import ControlError
from dora_node_api.frozen import FrozenRecord
from dora_node_api.protocol.messages import record_from_json, to_json

INDEX = "index.json"
FORMAT = 1
"""Number that is raised when the meaning of a key changes."""
NODE_SOCKET = "n"
CONTROL_SOCKET = "c"
PORT_VARIABLE = "DORA_DAEMON_LOCAL_LISTEN_PORT"
"""Holds a daemon's port in the environment of its runners, and of what their nodes start."""


class IndexEntry(FrozenRecord):
    """Dataflow, nodes and process of one runner."""

    dataflow_id: str
    name: str | None
    nodes: tuple[str, ...]
    dynamic_nodes: tuple[str, ...]
    pid: int
    start_time: int
    boot_id: str
    foreground: bool
    """Whether the runner belongs to a ``dora run``, which daemons do not adopt."""
    machine_id: str | None = None
    socket: str = NODE_SOCKET
    whole: bool = True
    """Whether the dataflow has no nodes on other machines."""
    daemon_port: int | None = None
    """``--local-listen-port`` of the daemon that started it, by which dynamic nodes select it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.dataflow_id})" if self.name else self.dataflow_id


def encode(entry: IndexEntry) -> str:
    """Return the text of the file."""
    return json.dumps({"format": FORMAT, **to_json(entry)})


def decode(text: str) -> IndexEntry:
    """Parse the text of the file. Raises ValueError and ControlError for others."""
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("format", 1) != FORMAT:
        raise ControlError(f"not an index of format {FORMAT}: {text[:80]}")
    entry: IndexEntry = record_from_json(IndexEntry, values, INDEX)
    return entry


def read_entry(directory: Path) -> IndexEntry | None:
    """Return the index of a directory; None if it has no readable index."""
    try:
        return decode((directory / INDEX).read_text())
    except (OSError, ValueError, ControlError):
        return None
