"""Report about a dataflow that has ended on the daemons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dora_cli import output
from dora_cli.logs.run_report import failure_text

if TYPE_CHECKING:
    from dora_config.protocol.control import EndedDataflow


def report_ended(ended: EndedDataflow) -> bool:
    """Print why a dataflow failed, first cause first; return whether it succeeded."""
    if ended.ok:
        return True
    if ended.reason is not None:
        output.failure(ended.reason)
    for node in ended.nodes:
        if node.outcome == "failed":
            output.failure(failure_text(node))
    cascading = sum(node.outcome == "cascading" for node in ended.nodes)
    if cascading:
        output.remark(output.counted(cascading, "more consequential error"))
    output.remark(f"logs: dora logs {ended.uuid}")
    return False


def label(uuid: str, name: str | None) -> str:
    """Return name and UUID as lists show them."""
    return f"{name} ({uuid})" if name else uuid
