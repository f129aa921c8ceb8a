"""End of a dataflow without a request, and its result over all daemons; pure."""

from __future__ import annotations

from collections.abc import Collection

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import LogSource, TimerSource
from dora_config.protocol.control import EndedDataflow
from dora_config.protocol.daemon import PartReport
from dora_config.protocol.runner import DataflowResult
from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.links.links import Links


class CompletionRule:
    """Decides when the remaining nodes of a dataflow are stopped."""

    def __init__(self, nodes: Collection[ResolvedNode], *, when_nodes_finish: bool) -> None:
        """Nodes that read only logs do not keep a dataflow running.

        With ``when_nodes_finish``, nodes that read only timers and logs do not either.
        """
        kinds = (LogSource, TimerSource) if when_nodes_finish else (LogSource,)
        own = {node.id for node in nodes if not node.is_dynamic}
        virtual = {node.id for node in nodes if node.id in own and _reads_only(node, kinds)}
        self._own = own
        self._kept_by = "timers" if when_nodes_finish else "logs"
        self._always_virtual = virtual == own

    def stop_reason(self, parts: Collection[Part]) -> str | None:
        """Return why the remaining parts are stopped now; None while they run on."""
        if not self._own:
            return None
        reason = "all nodes but dynamic ones have ended"
        for part in parts:
            if part.ended or self._own.isdisjoint(part.nodes):
                continue
            if self._always_virtual or not part.only_virtual_left:
                return None
            reason = f"all nodes but those with {self._kept_by} finished"
        return reason


def _reads_only(node: ResolvedNode, kinds: tuple[type[LogSource | TimerSource], ...]) -> bool:
    sources = [reader.source for reader in node.inputs.values()]
    return bool(sources) and all(isinstance(source, kinds) for source in sources)


def stopped_with(daemon: str) -> str:
    """Return why a dataflow ends when one of its daemons is stopped."""
    return f'daemon "{daemon}" was stopped'


def ended_early(report: PartReport, daemon: str) -> str:
    """Return why a part ended before it was released."""
    if report.stopped:
        return stopped_with(daemon)
    result = report.result
    reason = result.error if result and result.error else "nodes ended too early"
    return f'daemon "{daemon}": {reason}'


def last_line(result: DataflowResult | None, node: str | None) -> str:
    """Return ``: LINE`` with the last line on stderr of a failed node; empty without one."""
    nodes = () if result is None else result.nodes
    return next(
        (f": {one.stderr_tail[-1]}" for one in nodes if one.node == node and one.stderr_tail), ""
    )


def late_start(late: Collection[Part], unreported: Collection[Part], limit: float) -> str:
    """Return why a start timed out.

    ``late``: parts whose nodes were not started; ``unreported``: parts whose links do not listen.
    """
    missing, parts = ("no nodes were started", late) if late else ("no link", unreported)
    return f"{missing} within {limit:g} s on {names(parts)}: see the daemon's log"


def unlinked_start(links: Links) -> str:
    """Return why a start failed because machines do not reach each other."""
    return (
        f"machines that exchange data cannot reach each other:\n{links.explain_unlinked()}; "
        "--allow-unlinked starts it all the same"
    )


def ended_dataflow(
    uuid: str, name: str | None, parts: Collection[Part], *, ok: bool, reason: str | None
) -> EndedDataflow:
    """Return the end of a dataflow; ``reason``: why it failed as a whole."""
    nodes = [node for part in parts if part.result for node in part.result.nodes]
    errors = [part.result.error for part in parts if part.result and part.result.error]
    return EndedDataflow(
        uuid=uuid,
        name=name,
        ok=ok,
        reason=reason or "; ".join(errors) or None,
        nodes=tuple(sorted(nodes, key=lambda node: node.order)),
    )


def rolled_back(result: DataflowResult) -> DataflowResult:
    """Mark nodes that the rollback killed as cascading: they did not cause the failure."""
    nodes = [
        node.model_copy(update={"outcome": "cascading"})
        if node.outcome == "failed" and node.signal == "SIGKILL"
        else node
        for node in result.nodes
    ]
    return result.model_copy(update={"nodes": tuple(nodes)})
