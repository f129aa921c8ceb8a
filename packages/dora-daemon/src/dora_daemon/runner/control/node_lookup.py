"""Checks that requests have in common."""

from __future__ import annotations

from dora_daemon.runner.errors import RequestRefused
from dora_daemon.runner.machine.snapshot import NodeSnapshot
from dora_daemon.runner.machine.state import RunnerState


def find_node(state: RunnerState, node: str) -> NodeSnapshot:
    """Return the state of a node. Raises RequestRefused if it does not exist here."""
    found = state.node(node)
    if found is None:
        known = ", ".join(sorted(known.node for known in state.nodes())) or "none"
        raise RequestRefused(
            f'node "{node}" does not exist in this part of the dataflow (its nodes: {known})'
        )
    return found


def require_success(node: NodeSnapshot) -> None:
    """Raise RequestRefused if the node's process has failed."""
    result = node.result
    if result is not None and result.outcome != "success":
        cause = f": {result.stderr_tail[-1]}" if result.stderr_tail else ""
        raise RequestRefused(f'node "{node.node}" {result.message}{cause}')


def require_running(state: RunnerState) -> None:
    """Raise RequestRefused if the dataflow is being stopped or has ended."""
    if state.phase in ("stopping", "finished"):
        raise RequestRefused(f"the dataflow is {state.phase}")
