"""Barrier at the start of a dataflow: nodes that the start waits for; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine.commands import ArmTimer, Command, EmitLog
from dora_daemon.runner.machine.node import NodeLifecycle

BARRIER_NOTICE: Final = "barrier_notice"
"""Name of the timer of the notice."""
NOTICE_SECONDS = 10.0
"""Waiting time until a notice names the missing nodes. ``stop_after`` counts from the opening of
the barrier and fires this much later if the barrier never opens."""
NOTICE_INTERVAL = 60.0
"""Seconds between further notices."""
MAX_NAMES = 10
"""Nodes that a notice names."""


class StartBarrier:
    """The nodes that the start waits for, whether it is held, and whether it has opened."""

    def __init__(self, nodes: Iterable[ResolvedNode], *, held: bool) -> None:
        """``held``: open when the dataflow is released, not as soon as all nodes are ready."""
        self.nodes = {node.id for node in nodes if not node.is_dynamic}
        self.held = held
        self.open = False

    def complete(self, nodes: Mapping[str, NodeLifecycle]) -> bool:
        """Return whether the start waits for no node."""
        return bool(nodes) and not self._missing(nodes)

    def _missing(self, nodes: Mapping[str, NodeLifecycle]) -> list[str]:
        waited_for = (node for node in nodes.values() if node.id in self.nodes)
        return [node.id for node in waited_for if not node.up and not node.ended]

    def notice(self, nodes: Mapping[str, NodeLifecycle], now: float) -> list[Command]:
        """Return the notice about missing nodes, and the timer of the next one."""
        if not nodes:
            return [EmitLog("warn", "the dataflow has no nodes: it runs until it is stopped")]
        again = ArmTimer(None, BARRIER_NOTICE, now + NOTICE_INTERVAL)
        missing = self._missing(nodes)
        return [again, EmitLog("warn", missing_notice(missing))] if missing else [again]

    def broken_by(self, node: NodeLifecycle) -> bool:
        """Return whether an ended node keeps the dataflow from starting."""
        failed = node.result is not None and node.result.outcome == "failed"
        return node.id in self.nodes and failed and node.ended_unconnected


def missing_notice(missing: Iterable[str]) -> str:
    """Return the text about nodes that have not connected yet."""
    names = [f'"{name}"' for name in missing]
    shown = ", ".join(names[:MAX_NAMES])
    if len(names) > MAX_NAMES:
        shown += f" and {len(names) - MAX_NAMES} more"
    which, they = ("node", "it has") if len(names) == 1 else ("nodes", "they have")
    return (
        f"the dataflow has not started: waiting for {which} {shown} to connect"
        f" ({they} not created a dora `Node()` yet; `startup_timeout` sets a limit)"
    )
