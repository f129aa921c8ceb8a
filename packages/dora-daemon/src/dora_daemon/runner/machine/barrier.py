"""Which nodes the start of a dataflow waits for; pure."""

from __future__ import annotations

from collections.abc import Iterable

from dora_config.dataflow.resolved import ResolvedNode

NOTICE_SECONDS = 10.0
"""Waiting time until a notice names the missing nodes. ``stop_after`` counts from the opening of
the barrier and fires this much later if the barrier never opens."""
NOTICE_INTERVAL = 60.0
"""Seconds between further notices."""
MAX_NAMES = 10
"""Nodes that a notice names."""


def joins_barrier(node: ResolvedNode) -> bool:
    """Return whether the dataflow waits for the node to connect.

    A shell command without inputs and outputs never connects.
    """
    return not node.is_dynamic and bool(node.kind != "shell" or node.inputs or node.outputs)


def must_connect(node: ResolvedNode, in_barrier: int) -> bool:
    """Return whether exit code 0 before connecting is a failure: other nodes need this one."""
    if node.inputs or node.outputs:
        return True
    return joins_barrier(node) and in_barrier > 1


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
