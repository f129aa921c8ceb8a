"""Why inputs receive nothing or lose messages, from the counters of edges; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dora_config.history.entries import LinkPeerChanged
from dora_config.history.evidence import Evidence, merged
from dora_config.history.explanation import FlowProblem
from dora_config.history.troubles import on
from dora_config.ids import RESERVED_NODE_ID
from dora_config.protocol.runner import NodeStatus
from dora_config.protocol.runner_events import RECENT_SECONDS
from dora_config.protocol.snapshot import EdgeSummary

SILENT_SECONDS: Final = 10.0
"""Seconds without a message after which an input is reported as silent."""
DROPPED_SHARE: Final = 0.01
"""Part of the messages of an edge that must be dropped before its reader is reported as slow."""

_SILENT_STATES: Final[Mapping[str, str]] = {
    "Starting": "has not connected yet",
    "Restarting": "is restarting",
    "Stopping": "is stopping",
    "Finished": "has finished",
    "Failed": "has failed",
    "Stopped": "was stopped, or has not attached",
}
"""Predicates for the states in which a node sends nothing."""


@dataclass(frozen=True, slots=True)
class _Root:
    """Node at which a silent or slow path begins."""

    kind: str
    node: str
    text: str


class FlowGraph:
    """Edges with their counters, and the nodes between them."""

    def __init__(self, evidence: Evidence, running_for: float) -> None:
        """``running_for``: seconds since the nodes were started."""
        self._young = running_for <= SILENT_SECONDS
        self._machine_of = evidence.machine_of
        self._lost = {
            one.machine for one in evidence.machines if not one.connected or one.silent is not None
        }
        self._cut = _lost_links(evidence)
        self._status: Mapping[str, NodeStatus] = {
            node.node: node for one in evidence.machines for node in one.nodes
        }
        flows = [
            flow
            for one in evidence.machines
            for flow in one.edges
            if _node(flow.source) != RESERVED_NODE_ID  # logs are silent while no node logs
        ]
        self._into: dict[str, list[EdgeSummary]] = {}
        self._out_of: dict[str, list[EdgeSummary]] = {}
        for flow in flows:
            self._into.setdefault(_node(flow.target), []).append(flow)
            self._out_of.setdefault(_node(flow.source), []).append(flow)
        self._flows = flows

    def findings(self) -> tuple[FlowProblem, ...]:
        """Return slow and stuck nodes first, then the sources of silence."""
        found: dict[tuple[str, str], FlowProblem] = {}
        for flow in self._flows:
            if flow.blocked:
                self._add(found, self._slow(_node(flow.target), flow), None)
        for flow in self._flows:
            if _drops(flow) and not flow.blocked and not self._is_cut(flow):
                unread = not self._young and _is_idle(flow)
                if not flow.newest_only or unread:
                    self._add(found, self._dropping(flow), None)
        for flow in self._flows:
            if not self._young and _is_silent(flow):
                self._add(found, self._silence(flow), flow.target)
        order = {"stuck": 0, "slow": 1, "silent": 2}
        return tuple(sorted(found.values(), key=lambda one: order[one.kind]))

    def _is_cut(self, flow: EdgeSummary) -> bool:
        """Return whether the link is lost that an edge needs."""
        return frozenset((flow.source_machine, flow.target_machine)) in self._cut

    def _add(
        self, found: dict[tuple[str, str], FlowProblem], root: _Root, silent: str | None
    ) -> None:
        kind = "silent" if silent is not None and root.kind not in ("slow", "stuck") else root.kind
        known = found.get((kind, root.node))
        inputs = () if known is None else known.inputs
        if silent is not None and silent not in inputs:
            inputs = (*inputs, silent)
        text = root.text if known is None else known.text
        found[kind, root.node] = FlowProblem.model_validate(
            {
                "kind": kind,
                "node": root.node,
                "machine": self._machine_of.get(root.node),
                "text": text,
                "inputs": inputs,
            }
        )

    def _named(self, node: str) -> str:
        return f'node "{node}"{on(self._machine_of.get(node))}'

    def _slow(self, node: str, flow: EdgeSummary) -> _Root:
        """Return the node at the end of a chain of full queues."""
        seen = {node}
        while blocked := [one for one in self._out_of.get(node, ()) if one.blocked]:
            flow, node = blocked[0], _node(blocked[0].target)
            if node in seen:
                break  # a cycle of nodes that wait for each other
            seen.add(node)
        if self._is_cut(flow):
            end = f'input "{flow.target}" is full, and node "{_node(flow.source)}" waits for it'
            return _Root("stuck", node, f"{_lost_each_other(flow)}: {end}")
        end = f'its input "{flow.target}" is full, and node "{_node(flow.source)}" waits for it'
        if _is_idle(flow):
            text = f"{self._named(node)} reads no messages{self._cpu(node)}: {end}"
            return _Root("stuck", node, text)
        return _Root("slow", node, f"{self._named(node)} is too slow{self._cpu(node)}: {end}")

    def _dropping(self, flow: EdgeSummary) -> _Root:
        node = _node(flow.target)
        share = 100 * flow.dropped / max(flow.sent, 1)
        count = f"{flow.dropped} of {flow.sent} messages ({share:.0f} %)"
        if flow.recent_dropped:
            count += f", now {flow.recent_dropped / RECENT_SECONDS:,.0f}/s"
        if flow.received == 0 or flow.newest_only:
            text = f"{self._named(node)} reads no messages{self._cpu(node)}"
            return _Root("stuck", node, f'{text}: its input "{flow.target}" dropped {count}')
        text = f"{self._named(node)} is too slow{self._cpu(node)}"
        return _Root("slow", node, f'{text}: its input "{flow.target}" dropped {count}')

    def _cpu(self, node: str) -> str:
        """Return the load of a node, which shows whether it computes or waits."""
        status = self._status.get(node)
        if status is None or status.cpu_percent is None:
            return ""
        return f" (it uses {status.cpu_percent:.0f} % of a core)"

    def _silence(self, flow: EdgeSummary) -> _Root:
        """Return the first node upstream that explains why nothing arrives on an edge."""
        visited: set[str] = set()
        while True:
            node = _node(flow.source)
            if self._is_cut(flow) and self._machine_of.get(node) not in self._lost:
                return _Root("silent", node, _lost_each_other(flow))
            root = self._explained(node)
            if root is not None:
                return root
            incoming = self._into.get(node, [])
            quiet = [one for one in incoming if _is_silent(one)]
            if node in visited or not incoming or len(quiet) < len(incoming):
                return _Root("silent", node, self._sends_nothing(node, flow, incoming))
            visited.add(node)
            flow = quiet[0]

    def _explained(self, node: str) -> _Root | None:
        """Return why a node sends nothing, if it is not a lack of input."""
        status, machine = self._status.get(node), self._machine_of.get(node)
        if machine in self._lost:
            return _Root("silent", node, f'machine "{machine}" with node "{node}" is unreachable')
        if status is not None and status.status not in ("Running", "Degraded"):
            text = f"{self._named(node)} sends nothing because it {_SILENT_STATES[status.status]}"
            return _Root("silent", node, text)
        blocked = [one for one in self._out_of.get(node, ()) if one.blocked]
        return self._slow(_node(blocked[0].target), blocked[0]) if blocked else None

    def _sends_nothing(self, node: str, flow: EdgeSummary, incoming: Iterable[EdgeSummary]) -> str:
        since = "has sent nothing"
        if flow.idle_seconds is not None:
            since = f"has sent nothing for {flow.idle_seconds:.0f} s"
        text = f'{self._named(node)} {since} on output "{flow.source.partition("/")[2]}"'
        waiting = sum(one.queued for one in incoming)
        if waiting:
            return f"{text}; it does not read its inputs: {waiting} messages are queued"
        if any(not _is_silent(one) for one in incoming):
            return f"{text}, although it receives messages"
        return text


def _lost_links(evidence: Evidence) -> set[frozenset[str]]:
    """Return the pairs of machines of which one has lost its link to the other."""
    states = {
        (timed.machine, timed.event.peer): timed.event.state
        for timed in merged(evidence)
        if timed.machine is not None and isinstance(timed.event, LinkPeerChanged)
    }
    return {frozenset(pair) for pair, state in states.items() if state == "lost"}


def _lost_each_other(flow: EdgeSummary) -> str:
    ends = f'machine "{flow.source_machine}" and machine "{flow.target_machine}"'
    return f"{ends} have lost each other"


def _drops(flow: EdgeSummary) -> bool:
    """Return whether an edge loses messages now: its queue is full, or was again and again."""
    if flow.recent_dropped > DROPPED_SHARE * max(flow.recent_sent, 1):
        return True
    return flow.full and flow.dropped > DROPPED_SHARE * max(flow.sent, 1)


def _is_silent(flow: EdgeSummary) -> bool:
    return not flow.blocked and not flow.full and _is_idle(flow)


def _is_idle(flow: EdgeSummary) -> bool:
    return flow.idle_seconds is None or flow.idle_seconds > SILENT_SECONDS


def _node(port: str) -> str:
    return port.partition("/")[0]
