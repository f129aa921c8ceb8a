"""Steps that end one process: STOP, then SIGTERM, then SIGKILL; pure."""

from __future__ import annotations

from dataclasses import dataclass

from dora_daemon.runner.machine.commands import (
    ArmTimer,
    Command,
    SendStop,
    SignalNode,
    cancel_timers,
)
from dora_daemon.runner.machine.node_events import StopOrdered
from dora_node_api.frozen import replace

_FORCED = "the stop was forced"


@dataclass(slots=True)
class StopSequence:
    """Stop of a node's present process. Only STOP is sent to a dynamic node."""

    node: str
    dynamic: bool
    order: StopOrdered | None = None
    """What was ordered last; None while the process is to run."""
    kill_reason: str | None = None
    """Why SIGKILL was sent."""

    def reset(self) -> None:
        """Begin anew for another process."""
        self.order = None
        self.kill_reason = None

    def begin(
        self, order: StopOrdered, now: float, *, connected: bool, spawned: bool
    ) -> list[Command]:
        """Send the first step of a stop; ``spawned``: the process has a pid."""
        self.order = order
        commands = cancel_timers(self.node)
        if self.dynamic:
            return [*commands, SendStop(self.node)]
        if order.grace <= 0:
            return [*commands, *self.kill(_FORCED)]
        if connected:
            commands.append(SendStop(self.node))
        elif spawned:
            # STOP cannot reach it, so there is nothing to wait for
            commands.append(SignalNode(self.node, "SIGTERM"))
        return [*commands, ArmTimer(self.node, "terminate", now + order.grace)]

    def repeat(self, order: StopOrdered, now: float) -> list[Command]:
        """Apply another order during the stop. An end outweighs a restart."""
        assert self.order is not None
        if order.then == "end" or self.order.then == "end":
            grace = min(order.grace, self.order.grace)
            order = replace(order, grace=grace, then="end", successor=None)
        self.order = order
        if self.dynamic:
            return []
        if order.grace <= 0:
            return [*cancel_timers(self.node), *self.kill(_FORCED)]
        return [ArmTimer(self.node, "terminate", now + order.grace)]

    def terminate(self, now: float) -> list[Command]:
        """Send SIGTERM, later SIGKILL."""
        assert self.order is not None
        return [
            SignalNode(self.node, "SIGTERM"),
            ArmTimer(self.node, "kill", now + self.order.grace / 2),
        ]

    def kill_overdue(self) -> list[Command]:
        """Kill a process that reacted neither to STOP nor to SIGTERM."""
        waited = 0.0 if self.order is None else self.order.grace * 1.5
        return self.kill(f"it didn't react to a stop message in time ({waited:g} s)")

    def kill(self, reason: str) -> list[Command]:
        """Send SIGKILL; ``reason`` completes "was killed: ..."."""
        self.kill_reason = reason
        return [SignalNode(self.node, "SIGKILL")]
