"""Adoption of a dataflow that machines run and whose record is missing or older; pure."""

from __future__ import annotations

from dora_config.protocol import daemon as messages
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.rewiring import merged
from dora_coordinator.state.records import DataflowRecord, PartState, Phase, StoredPart


def is_later(end: messages.PartReport, than: Dataflow) -> bool:
    return than.begun.order(than.id) < end.begun.order(end.dataflow_id)


def nodes_of_others(known: Dataflow, daemon: str, spec: DataflowSpec) -> list[str]:
    """Return the nodes of other machines' parts, which only those machines may describe."""
    parts = [part for part in known.parts.values() if part.daemon != daemon and not part.ended]
    others = {node for part in parts for node in part.nodes}
    return [node.id for node in spec.resolved.nodes if node.id in others]


def described_parts(daemon: str, message: messages.PartDescribed) -> tuple[StoredPart, ...]:
    """Return the parts of a dataflow from the description that one machine keeps."""
    own = StoredPart(
        daemon=daemon,
        nodes=tuple(node.id for node in message.spec.resolved.nodes),
        state=PartState.RUNNING,  # until the machine reports the part
        attempt=message.attempt,
        revision=message.revision,
    )
    others: dict[str, tuple[str, ...]] = {}
    for node, other in message.whole.placement.items():
        if other != daemon:
            others[other] = (*others.get(other, ()), node)
    claimed = (
        StoredPart(
            daemon=other,
            nodes=nodes,
            state=PartState.RUNNING,
            attempt=0,
            revision=-1,
            claimed=True,
        )
        for other, nodes in others.items()
    )
    return (own, *claimed)


def described_spec(daemon: str, message: messages.PartDescribed) -> DataflowSpec:
    """Return the specification of a whole dataflow from the description that a machine keeps."""
    known = message.whole.unpack()
    if known is None:
        return message.spec
    placement = message.whole.placement
    order = {node: index for index, node in enumerate(placement)}
    own = message.spec.resolved.nodes
    described = {node.id for node in own}
    others = [
        node
        for node in known.resolved.nodes
        if placement.get(node.id) != daemon and node.id not in described
    ]
    ordered = sorted((*others, *own), key=lambda node: order.get(node.id, len(order)))
    return merged(known.with_nodes(tuple(ordered)), (), message.spec)


def adopted(daemon: str, message: messages.PartDescribed, number: int) -> DataflowRecord:
    """Return the record of a dataflow that the store does not contain."""
    return DataflowRecord(
        dataflow_id=message.dataflow_id,
        name=message.spec.name,
        phase=Phase.RECOVERING,
        parts=described_parts(daemon, message),
        number=number,
        begun=message.whole.begun,
        changes=message.whole.changes,
    )


def extended(
    known: Dataflow, daemon: str, message: messages.PartDescribed
) -> tuple[DataflowRecord, DataflowSpec, tuple[str, ...]]:
    """Return record and specification from a machine's newer description, and former daemons."""
    parts = {part.daemon: part for part in described_parts(daemon, message)}
    record = known.record()
    kept = {part.daemon: part for part in record.parts}
    removed: tuple[str, ...] = ()
    if not message.whole.placement:
        spec = merged(known.spec, (), message.spec)
    else:
        spec = described_spec(daemon, message)
        removed = tuple(name for name in kept if name not in parts)
        kept = {
            name: kept[name].model_copy(update={"nodes": part.nodes, "revision": -1})
            if name in kept
            else part
            for name, part in parts.items()
        }
    kept[daemon] = parts[daemon]
    update: dict[str, object] = {
        "phase": Phase.RECOVERING if known.phase is Phase.RECOVERING else Phase.RUNNING,
        "parts": tuple(kept.values()),
        "changes": max(message.whole.changes, known.changes),
    }
    if known.has_ended:
        update |= {"reason": None, "stopped_since": None, "unreported": False, "ended_at": None}
    begun = message.whole.begun
    if known.begun.order(known.id) < begun.order(known.id):  # the record has no proof of it
        update |= {"begun": begun, "name": message.spec.name}
    return record.model_copy(update=update), spec, removed
