"""States of nodes and links as runners report them, and how nodes end; pure.

Apart from other reports: a runner and `dora run` start without the messages of clients.
"""

from __future__ import annotations

from typing import Literal

from dora_config.frozen import Count, Frozen, Quantity

PeerState = Literal["connecting", "connected", "lost", "left"]
"""``connecting``: not connected yet in this run of the peer. ``connected``: messages pass both
ways, both ends agree on the streams. ``lost``: was connected, or has an incompatible version; the
link keeps trying. ``left``: the peer's part has ended normally.

Two machines are *linked* when each reports the other as connected."""

ShownState = Literal[
    "Starting",
    "Running",
    "Restarting",
    "Degraded",
    "Stopping",
    "Finished",
    "Failed",
    "Stopped",
    "Unknown",
]
"""``Degraded``: an input timed out. ``Stopped``: by request, or dynamic and not attached.
``Unknown``: its machine is not reachable, as only the coordinator reports."""


class NodeStatus(Frozen):
    """State and counters of one node."""

    node: str
    status: ShownState
    pid: int | None = None
    incarnation: int = 0
    restarts: Count = 0
    last_restart: str | None = None
    """Cause of the last restart in a few words."""
    last_restart_ago: Quantity | None = None
    """Seconds."""
    dynamic: bool = False
    broken_inputs: tuple[str, ...] = ()
    blocked_on: str | None = None
    """``node/input`` whose full queue blocks this node."""
    cpu_percent: Quantity | None = None
    """Per cent of one core over the last two seconds, including the node's children."""
    memory_bytes: Count | None = None
    """Resident set of the node and its children."""
    cpu_seconds: Quantity | None = None
    """CPU time of the node and its children since it started."""
    read_bytes: Count | None = None
    written_bytes: Count | None = None
    queued: Count = 0
    """Messages in the queues of all inputs."""
    health_kills: Count = 0
    input_timeouts: Count = 0
    input_recoveries: Count = 0
    error: str | None = None
    held: str | None = None
    """Why the node must not be replaced, removed or restarted now."""


class NodeResult(Frozen):
    """End of one node; ``message`` is a full sentence for failures, else empty."""

    node: str
    outcome: Literal["success", "failed", "cascading"]
    message: str = ""
    caused_by: str | None = None
    """Node whose failure caused this one, if ``cascading``."""
    exit_code: int | None = None
    signal: str | None = None
    """Name of the signal that ended the process, such as ``SIGKILL``."""
    stderr_tail: tuple[str, ...] = ()
    """Last lines of the node's stderr (at most 500)."""
    restarts: int = 0
    order: int = 0
    """Position in the order of ends, from 0; sorts failures by cause."""
