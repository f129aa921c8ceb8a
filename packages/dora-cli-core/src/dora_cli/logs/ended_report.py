"""Report of the end of a dataflow on daemons, and the failure of one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dora_cli import output

if TYPE_CHECKING:
    from dora_config.protocol.control import EndedDataflow

SHOWN_STDERR_LINES = 30
"""Most lines of the stderr of a failed node on the terminal."""


def report_ended(ended: EndedDataflow, *, with_reason: bool = True) -> bool:
    """Print why a dataflow failed, first cause first; return whether it succeeded."""
    if ended.ok:
        return True
    if with_reason and ended.reason is not None:
        output.failure(ended.reason)
    for node in ended.nodes:
        if node.outcome == "failed":
            output.failure(failure_text(node.node, node.message, node.stderr_tail))
    cascading = sum(node.outcome == "cascading" for node in ended.nodes)
    if cascading:
        output.remark(output.counted(cascading, "more consequential error"))
    output.remark(f"logs: dora logs {ended.uuid}")
    return False


def label(uuid: str, name: str | None) -> str:
    """Return name and UUID as lists show them."""
    return f"{name} ({uuid})" if name else uuid


def failure_text(node: str, message: str, stderr_tail: Sequence[str]) -> str:
    """Return the failure of a node with the last lines of its stderr."""
    text = f'node "{node}": {message}'
    tail = stderr_tail[-SHOWN_STDERR_LINES:]
    if not tail:
        return text
    left_out = len(stderr_tail) - len(tail)
    title = "stderr" if not left_out else f"stderr, {left_out} earlier lines left out"
    return f"{text}\n{output.box(title, tail)}"
