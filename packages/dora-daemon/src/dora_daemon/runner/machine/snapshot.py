"""Read-only state of one node; pure."""

from __future__ import annotations

from enum import Enum

from dora_config.protocol.runner_events import NodeResult
from dora_node_api.frozen import Frozen


class NodeState(Enum):
    """State inside the runner; docs/reference/states.md explains each value."""

    PLANNED = "planned"
    CONNECTING = "connecting"
    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKING_OFF = "backing off"
    ENDED = "ended"
    ABSENT = "absent"


class NodeSnapshot(Frozen):
    """State of a node at one moment."""

    node: str
    state: NodeState
    dynamic: bool
    incarnation: int
    pid: int | None
    connected: bool
    stopped: bool
    """A stop was requested for its current or last process."""
    restarts: int
    last_restart: tuple[str, float] | None
    """Cause in a few words, and time."""
    health_kills: int
    result: NodeResult | None

    @property
    def ended(self) -> bool:
        return self.state is NodeState.ENDED
