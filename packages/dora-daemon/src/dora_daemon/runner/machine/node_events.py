"""Events of one node's state machine; pure."""

from __future__ import annotations

from typing import Literal

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine import events
from dora_node_api.frozen import Frozen


class SpawnDue(Frozen):
    """The node's process is to be started."""


class StopOrdered(Frozen):
    """Send STOP, after ``grace`` SIGTERM, half as long later SIGKILL; grace 0 kills at once."""

    grace: float
    then: Literal["end", "restart", "replace"] = "end"
    successor: tuple[ResolvedNode, int] | None = None
    """For a replacement: the new node and the incarnation of its staged process."""


class BarrierOpened(Frozen):
    """Every node has connected."""


class BarrierBroken(Frozen):
    """Node ``cause`` ended before it connected, so the dataflow does not start."""

    cause: str
    grace: float


class ReplacementStaged(Frozen):
    """A process with another program is started beside the running one."""

    incarnation: int


class InputsEnded(Frozen):
    """All inputs have ended, so the node should end by itself."""


NodeEvent = (
    SpawnDue
    | events.NodeSpawned
    | events.SpawnFailed
    | events.NodeConnected
    | BarrierOpened
    | BarrierBroken
    | events.NodeExited
    | events.NodeDetached
    | events.NodeStalled
    | events.NodeCorrupted
    | ReplacementStaged
    | events.ReplacementAbandoned
    | events.ReplacementLost
    | StopOrdered
    | InputsEnded
    | events.TimerFired
)
