"""Format of ``index.json``, by which nodes and daemons find a runner; pure.

``dora_node_api.backends.attach`` reads the same keys and cannot import this module. A reader
ignores unknown keys, so only a change of the meaning of a key needs a new FORMAT.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

FORMAT = 1
"""Number that is raised when the meaning of a key changes."""
NODE_SOCKET = "n"
CONTROL_SOCKET = "c"
PORT_VARIABLE = "DORA_DAEMON_LOCAL_LISTEN_PORT"
"""Holds a daemon's port in the environment of its runners, and of what their nodes start."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
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


def encode(entry: IndexEntry) -> str:
    """Return the text of ``index.json``."""
    return json.dumps({"format": FORMAT, **asdict(entry)})


def decode(text: str) -> IndexEntry:
    """Parse ``index.json``. Raises ValueError, KeyError, TypeError or AttributeError for others."""
    values = json.loads(text)
    if values.get("format", 1) != FORMAT:
        raise ValueError(f"index of format {values['format']}, expected {FORMAT}")
    known = {f.name: values[f.name] for f in fields(IndexEntry) if f.name in values}
    known["nodes"] = tuple(values["nodes"])
    known["dynamic_nodes"] = tuple(values["dynamic_nodes"])
    return IndexEntry(**known)
