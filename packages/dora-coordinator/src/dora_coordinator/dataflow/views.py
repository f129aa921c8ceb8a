"""Rows of lists and status reports; pure."""

from __future__ import annotations

from collections.abc import Iterable

from dora_config.protocol.control import (
    ClusterReport,
    DataflowList,
    DataflowSummary,
    Described,
    NodeList,
    RestartSummary,
)
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.runner import NodeStatus, ShownState
from dora_config.protocol.snapshot import DaemonSummary, LinkSummary, NodeSummary
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.part import Part
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.state.membership import Member, Membership


def dataflow_list(registry: DataflowRegistry, membership: Membership, now: float) -> DataflowList:
    rows = (dataflow_summary(one, registry, membership, now) for one in registry)
    return DataflowList(dataflows=tuple(rows))


def dataflow_summary(
    dataflow: Dataflow, registry: DataflowRegistry, membership: Membership, now: float
) -> DataflowSummary:
    status, reason = dataflow.status()
    sampled = [
        status
        for part in dataflow.parts.values()
        for status in _sampled(part, dataflow, membership)
    ]
    ended = [
        node
        for part in dataflow.parts.values()
        if part.ended and part.result is not None
        for node in part.result.nodes
    ]
    if status == "Running":
        waiting = [
            f'node "{node.node}" {node.error}'
            for node in sampled
            if node.status == "Degraded" and node.error
        ]
        reason = "; ".join(waiting) or None
    reason = "; ".join([*([reason] if reason else []), *registry.named(dataflow, now)]) or None
    recovered = [part for part in dataflow.parts.values() if part.recovered_at is not None]
    return DataflowSummary(
        uuid=dataflow.id,
        name=dataflow.name,
        status=status,
        reason=reason,
        ended_ago=dataflow.ended_ago(now),
        restarts=sum(node.restarts for node in sampled) + sum(node.restarts for node in ended),
        last_restart=_last_restart(dataflow, membership, now),
        recoveries=sum(part.attempt - 1 for part in dataflow.parts.values()),
        last_recovery=_last_recovery(recovered, now),
        nodes=sum(len(part.nodes) for part in dataflow.parts.values()),
        daemons=tuple(dataflow.parts),
        cpu=sum(node.cpu_percent or 0.0 for node in sampled),
        memory=sum(node.memory_bytes or 0 for node in sampled),
        links=tuple(
            link
            for machine in dataflow.links.machines
            for link in _links(dataflow, machine, membership)
        ),
    )


def _last_restart(dataflow: Dataflow, membership: Membership, now: float) -> RestartSummary | None:
    found = []
    for part in dataflow.parts.values():
        member = membership.get(part.daemon)
        since_sample = 0.0 if member is None else now - member.metrics_at
        found += [
            RestartSummary(
                cause=node.last_restart,
                ago=round((node.last_restart_ago or 0.0) + since_sample, 1),
                node=node.node,
            )
            for node in _sampled(part, dataflow, membership)
            if node.last_restart is not None
        ]
    return min(found, key=lambda one: one.ago, default=None)


def _last_recovery(parts: Iterable[Part], now: float) -> RestartSummary | None:
    found = [
        RestartSummary(
            cause=part.recovery_reason or "",
            ago=round(now - (part.recovered_at or now), 1),
            daemon=part.daemon,
        )
        for part in parts
    ]
    return min(found, key=lambda one: one.ago, default=None)


def _links(dataflow: Dataflow, machine: str, membership: Membership) -> list[LinkSummary]:
    """Return one machine's links; round trips are those of its last heartbeat."""
    report = dataflow.links.report_of(machine)
    if report is None or dataflow.parts[machine].ended:
        return []
    member = membership.get(machine)
    metrics = None if member is None else member.metrics.get(dataflow.id)
    link = None if metrics is None else metrics.link
    newest = {} if link is None else {peer.machine: peer for peer in link.peers}
    return [
        LinkSummary(
            dataflow=dataflow.id,
            machine=machine,
            peer=peer.machine,
            state=peer.state,
            reason=peer.reason,
            endpoint=peer.endpoint,
            rtt_us=newest.get(peer.machine, peer).rtt_us,
            clock_offset_us=newest.get(peer.machine, peer).clock_offset_us,
        )
        for peer in report.peers
    ]


def _sampled(part: Part, dataflow: Dataflow, membership: Membership) -> tuple[NodeStatus, ...]:
    member = membership.get(part.daemon)
    metrics = None if member is None or part.ended else member.metrics.get(dataflow.id)
    return () if metrics is None else metrics.nodes


def node_list(dataflows: Iterable[Dataflow], membership: Membership) -> NodeList:
    rows = (row for one in dataflows for row in node_summaries(one, membership))
    return NodeList(nodes=tuple(rows))


def described(dataflow: Dataflow) -> Described:
    """Return what a dataflow was started from, and the daemon of each node."""
    parts = dataflow.parts.values()
    daemons = {node: part.daemon for part in parts for node in part.nodes}
    return Described(uuid=dataflow.id, spec=dataflow.spec, daemons=daemons)


def node_summaries(dataflow: Dataflow, membership: Membership) -> list[NodeSummary]:
    rows = []
    for part in dataflow.parts.values():
        sampled = {node.node: node for node in _sampled(part, dataflow, membership)}
        results = {node.node: node for node in part.result.nodes} if part.result else {}
        for node_id in part.nodes:
            now, end = sampled.get(node_id), results.get(node_id)
            seen = now or NodeStatus(
                node=node_id,
                status="Starting",
                restarts=end.restarts if end else 0,
                error=end.message or None if end else None,
            )
            status = _shown_state(part, seen, end.outcome if end else None, membership)
            rows.append(
                NodeSummary(
                    **{**dict(seen), "status": status},
                    dataflow=dataflow.id,
                    dataflow_name=dataflow.name,
                    daemon=part.daemon,
                )
            )
    return rows


def _shown_state(
    part: Part, seen: NodeStatus, outcome: str | None, membership: Membership
) -> ShownState:
    if part.ended:
        return "Failed" if outcome in ("failed", "cascading") else "Finished"
    if not membership.is_connected(part.daemon):
        return "Unknown"
    return seen.status


def cluster_report(
    registry: DataflowRegistry, membership: Membership, party: ProgramVersion, now: float
) -> ClusterReport:
    return ClusterReport(
        coordinator=party,
        machines=tuple(
            daemon_summary(member, registry, membership, now) for member in membership.all()
        ),
        active_dataflows=len(registry.live()),
        differences=tuple(
            f"dataflow {dataflow.label}: {text}"
            for dataflow in registry
            for text in registry.named(dataflow, now)
        ),
    )


def daemon_summary(
    member: Member, registry: DataflowRegistry, membership: Membership, now: float
) -> DaemonSummary:
    nodes = [node for metrics in member.metrics.values() for node in metrics.nodes]
    return DaemonSummary(
        daemon=member.key,
        machine_id=member.register.machine_id,
        labels=member.register.labels,
        address=member.address,
        release=member.register.party.release,
        runners=tuple(sorted({one.version for one in member.metrics.values() if one.version})),
        connected=member.connection is not None,
        ended=member.left,
        heartbeat_age=max(0.0, now - member.last_message),
        clock_offset=member.clock_offset,
        restarts=sum(node.restarts for node in nodes),
        health_kills=sum(node.health_kills for node in nodes),
        input_timeouts=sum(node.input_timeouts for node in nodes),
        input_recoveries=sum(node.input_recoveries for node in nodes),
        plain_links=member.register.plain_links,
        links=tuple(
            link
            for dataflow in registry.unfinished_on(member.key)
            for link in _links(dataflow, member.key, membership)
        ),
    )
