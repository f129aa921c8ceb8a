"""State of the page from answers of the coordinator; pure.

Rows do not contain null: unknown values are absent. Times are Unix times of the coordinator, so
that they change only with events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.control import DataflowSummary, Described, RestartSummary
from dora_config.protocol.snapshot import (
    EdgeRates,
    EdgeSummary,
    LinkSummary,
    MachineSummary,
    NodeSummary,
    Snapshot,
    all_edge_rates,
)

SILENT_AFTER = 7.0
"""Seconds after the last heartbeat after which a machine is shown as silent."""

Row = dict[str, Any]


def state(
    source: Row,
    dataflows: Iterable[DataflowSummary],
    snapshot: Snapshot,
    before: Snapshot | None,
) -> Row:
    """Return the state; ``before`` is the previous snapshot, for rates."""
    nodes: dict[str, Row] = {}
    for node in snapshot.nodes:
        nodes.setdefault(node.dataflow, {})[node.node] = _node(node, snapshot.time)
    edges: dict[str, Row] = {}
    rates = all_edge_rates(before, snapshot)
    for edge in snapshot.edges:
        row = _edge(edge, rates[edge.key])
        edges.setdefault(edge.dataflow, {})[f"{edge.source}>{edge.target}"] = row
    on_machine = Counter(node.daemon for node in snapshot.nodes)
    earlier = {} if before is None else {one.daemon: one for one in before.machines}
    seconds = 0.0 if before is None else snapshot.time - before.time
    return {
        "source": source,
        "machines": {
            one.daemon: _machine(one, earlier.get(one.daemon), seconds, on_machine, snapshot.time)
            for one in snapshot.machines
        },
        "links": _links(snapshot.machines),
        "dataflows": {
            one.uuid: _dataflow(one, nodes.get(one.uuid, {}), edges.get(one.uuid, {}), snapshot)
            for one in dataflows
        },
        "nodes": nodes,
        "edges": edges,
        "problems": list(snapshot.problems),
    }


def _machine(
    one: MachineSummary,
    before: MachineSummary | None,
    seconds: float,
    nodes: Mapping[str, int],
    now: float,
) -> Row:
    status = "connected" if one.connected else "ended" if one.ended else "lost"
    row: Row = {
        "status": status,
        "address": one.address,
        "release": one.release,
        "labels": one.labels,
        "nodes": nodes.get(one.daemon, 0),
        "restarts": one.restarts,
        "healthKills": one.health_kills,
        "inputTimeouts": one.input_timeouts,
    }
    if one.heartbeat_age > SILENT_AFTER or not one.connected:
        row["seenAt"] = round(now - one.heartbeat_age)
    if one.clock_offset is not None:
        row["offsetMs"] = round(one.clock_offset * 1000)
    if one.runners:
        row["runners"] = list(one.runners)
    if one.plain_links:
        row["plainLinks"] = True
    if one.operation is not None:
        ahead = one.clock_offset
        row["operation"] = _row(
            command=one.operation.command,
            operator=one.operation.operator,
            since=None if ahead is None else round(one.operation.since - ahead),
        )
    load = one.load
    if load is not None and load.memory_total_bytes:
        row["cpus"] = load.cpus
        row["memory"] = _digits(load.memory_bytes)
        row["memoryTotal"] = load.memory_total_bytes
        if load.disk_total_bytes:
            row["disk"], row["diskTotal"] = _digits(load.disk_bytes), load.disk_total_bytes
        if before is not None and before.load is not None and seconds > 0:
            busy = load.cpu_seconds - before.load.cpu_seconds
            share = busy / seconds / max(1, load.cpus)
            row["cpu"] = round(100 * min(1.0, max(0.0, share)), 1)
    return row


def _links(machines: Iterable[MachineSummary]) -> Row:
    """Return links by ``MACHINE>PEER``; of several dataflows, only the worst link."""
    found: dict[str, Row] = {}
    for machine in machines:
        for link in machine.links:
            key = f"{link.machine}>{link.peer}"
            row = _link(link)
            found[key] = max(
                (found.get(key, row), row),
                key=lambda one: (one["state"] != "connected", one.get("rttUs", 0)),
            )
    return found


def _link(link: LinkSummary) -> Row:
    return _row(
        machine=link.machine,
        peer=link.peer,
        state=link.state,
        reason=link.reason,
        endpoint=link.endpoint,
        rttUs=None if link.rtt_us is None else _digits(link.rtt_us),
        offsetUs=None if link.clock_offset_us is None else _digits(link.clock_offset_us),
    )


def _dataflow(one: DataflowSummary, nodes: Row, edges: Row, snapshot: Snapshot) -> Row:
    row = _row(
        name=one.name,
        status=one.status,
        reason=one.reason,
        nodes=one.nodes,
        machines=list(one.daemons),
        cpu=round(one.cpu, 1),
        memory=_digits(one.memory),
        restarts=one.restarts,
        recoveries=one.recoveries,
        lastRestart=_restart(one.last_restart, snapshot.time),
        lastRecovery=_restart(one.last_recovery, snapshot.time),
        endedAt=None if one.ended_ago is None else round(snapshot.time - one.ended_ago),
    )
    row["states"] = dict(Counter(node["status"] for node in nodes.values()))
    if not edges or any("rate" in edge for edge in edges.values()):
        row["rate"] = _digits(sum(edge.get("rate", 0) for edge in edges.values()))
        row["dropRate"] = _digits(sum(edge.get("dropRate", 0) for edge in edges.values()))
    return row


def _restart(one: RestartSummary | None, now: float) -> Row | None:
    if one is None:
        return None
    return _row(cause=one.cause, at=round(now - one.ago), node=one.node, machine=one.daemon)


def _node(one: NodeSummary, now: float) -> Row:
    ago = one.last_restart_ago
    return _row(
        status=one.status,
        machine=one.daemon,
        pid=one.pid,
        cpu=None if one.cpu_percent is None else round(one.cpu_percent, 1),
        memory=None if one.memory_bytes is None else _digits(one.memory_bytes),
        read=None if one.read_bytes is None else _digits(one.read_bytes),
        written=None if one.written_bytes is None else _digits(one.written_bytes),
        restarts=one.restarts,
        lastRestart=one.last_restart,
        lastRestartAt=None if ago is None else int(round(now - ago, -1)),
        queued=one.queued,
        blockedOn=one.blocked_on,
        brokenInputs=list(one.broken_inputs) or None,
        error=one.error,
        held=one.held,
    )


def _edge(one: EdgeSummary, rates: EdgeRates) -> Row:
    return _row(
        source=one.source,
        target=one.target,
        policy=one.policy,
        sourceMachine=one.source_machine,
        targetMachine=one.target_machine,
        sent=one.sent,
        received=one.received,
        dropped=one.dropped + one.lost,
        unmatched=one.unmatched or None,
        queued=one.queued,
        blocked=one.blocked or None,
        rate=None if rates.messages is None else _digits(rates.messages),
        bytes=None if rates.bytes is None else _digits(rates.bytes),
        wire=None if rates.wire_bytes is None else _digits(rates.wire_bytes),
        ratio=None if one.ratio is None else _digits(one.ratio),
        dropRate=None if rates.drops is None else _digits(rates.drops),
        p50Us=None if rates.p50 is None else _digits(rates.p50 * 1e6),
        p99Us=None if rates.p99 is None else _digits(rates.p99 * 1e6),
    )


def graph(described: Described) -> Row:
    """Return the nodes of a dataflow with their ports; without `env`, which may hold secrets."""
    resolved = described.spec.resolved
    return {
        "uuid": described.uuid,
        "inspectable": resolved.debug_inspection,
        "nodes": [graph_node(node, described.daemons.get(node.id)) for node in resolved.nodes],
    }


def graph_node(node: ResolvedNode, machine: str | None) -> Row:
    """Return a node with its ports."""
    return _row(
        id=node.id,
        name=node.name,
        description=node.description,
        machine=machine,
        kind=node.kind,
        path=node.path,
        restart=node.restart.policy,
        inputs=[
            _row(
                id=name,
                source=str(port.source),
                policy=port.queue_policy,
                size=port.queue_size,
                type=node.input_types.get(name) or port.data_type,
                timeout=port.input_timeout,
            )
            for name, port in node.inputs.items()
        ],
        outputs=[_row(id=name, type=node.output_types.get(name)) for name in node.outputs],
    )


def _row(**values: Any) -> Row:
    """Return a row with the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def _digits(value: float) -> float:
    """Round a number to three significant digits, so that noise does not change the state."""
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short
