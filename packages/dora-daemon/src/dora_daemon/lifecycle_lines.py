"""Log lines about restarts and failures of nodes; pure."""

from __future__ import annotations

from dora_config.dataflow.sources import LogLevel
from dora_config.protocol import runner_events as reports
from dora_node_api.frozen import FrozenRecord


class LifecycleLine(FrozenRecord):
    """One line; ``message`` continues a sentence that starts with `node "x"`."""

    node: str
    level: LogLevel
    message: str


class LifecycleLines:
    """Turns events of one dataflow into lines: restarts with cause and delay, and failures."""

    def __init__(self) -> None:
        self._restarting: dict[str, int] = {}

    def line(self, event: reports.RunnerEvent) -> LifecycleLine | None:
        """Return the line about an event, None for other events."""
        match event:
            case reports.NodeRestarting(node=node, reason=why, delay=delay, restarts=count):
                self._restarting[node] = count
                when = f" in {delay:g} s" if delay else ""
                return LifecycleLine(node, "warn", f"{why}; restart {count}{when}")
            case reports.NodeConnected(node=node, pid=pid) if node in self._restarting:
                count = self._restarting.pop(node)
                return LifecycleLine(
                    node, "info", f"runs again after restart {count} (process {pid})"
                )
            case reports.NodeFailed(result=result) if result.outcome == "failed":
                self._restarting.pop(result.node, None)
                return LifecycleLine(result.node, "error", f"failed: {result.message}")
            case _:
                return None
