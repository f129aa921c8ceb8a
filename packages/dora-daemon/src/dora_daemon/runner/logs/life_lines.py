"""Log lines about restarts and failures of a node's process; pure."""

from __future__ import annotations

from dora_config.protocol.runner_events import (
    LogLevel,
    NodeConnected,
    NodeFailed,
    NodeRestarting,
    RunnerEvent,
)
from dora_node_api.frozen import Frozen


class LifeLine(Frozen):
    """A line; ``message`` follows `node "x"` in a sentence."""

    node: str
    level: LogLevel
    message: str


class LifeLines:
    """Lines of all nodes of one dataflow."""

    def __init__(self) -> None:
        self._restarting: dict[str, int] = {}

    def line(self, event: RunnerEvent) -> LifeLine | None:
        """Return the line about an event; None if it needs none."""
        match event:
            case NodeRestarting(node=node, reason=why, delay=delay, restarts=count):
                self._restarting[node] = count
                when = f" in {delay:g} s" if delay else ""
                return LifeLine(node, "warn", f"{why}; restart {count}{when}")
            case NodeConnected(node=node, pid=pid) if node in self._restarting:
                count = self._restarting.pop(node)
                return LifeLine(node, "info", f"runs again after restart {count} (process {pid})")
            case NodeFailed(result=result) if result.outcome == "failed":
                self._restarting.pop(result.node, None)
                return LifeLine(result.node, "error", f"failed: {result.message}")
            case _:
                return None
