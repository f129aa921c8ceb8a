"""Changes of the nodes and edges of a running dataflow: specification, parts and links; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from dora_config.dataflow.expand import describe_dataflow
from dora_config.protocol.dataflow import DataflowSpec, updated
from dora_coordinator.dataflow.completion import CompletionRule
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.events import EndedPartChanged, NodesDescribed, PartAdded
from dora_coordinator.dataflow.part import Part
from dora_coordinator.dataflow.stopping import stop_because
from dora_coordinator.state.commands import Command, Log, SaveRecord
from dora_coordinator.state.records import PartState, Phase

Value = TypeVar("Value")


def describe(data: DataflowData, event: NodesDescribed, now: float) -> list[Command]:
    """Adopt the nodes that a daemon described, unless the description is of an earlier start."""
    part, described = data.parts.get(event.daemon), event.message
    if part is None or part.ended or described.attempt < part.attempt:
        return []
    if described.revision == part.revision:
        return []
    part.revision = described.revision
    ids = tuple(node.id for node in described.spec.resolved.nodes)
    spec = merged(data.spec, part.nodes, described.spec)
    if (spec.resolved, spec.code) == (data.spec.resolved, data.spec.code):
        data.spec = spec
        return [SaveRecord(data.record(), spec)]
    commands = _rewire(data, spec, {part.daemon: ids})
    reason = data.completion.stop_reason(data.parts.values())
    if reason is not None and data.phase is Phase.RUNNING:  # the last running node was removed
        commands += stop_because(data, reason, now)
    return commands


def add_part(data: DataflowData, event: PartAdded) -> list[Command]:
    """Prepare a node on a further daemon, while the others run."""
    node = event.node.node
    part = Part(data.id, event.daemon, (), PartState.PREPARING, 1, None, fresh=True)
    data.parts.add(part)
    data.not_added.pop(event.daemon, None)
    own = data.spec.with_current((event.node,))
    commands = _rewire(data, merged(data.spec, (), own), {event.daemon: (node.id,)}, new=part)
    return [*commands, data.prepare(part)]


def change_ended_part(data: DataflowData, event: EndedPartChanged) -> list[Command]:
    """Change the nodes of a part that has no runner any more, and start some of them."""
    part = data.parts.get(event.daemon)
    if part is None or not part.ended:
        return []
    changed = {one.node.id for one in event.nodes}
    ids = tuple(
        dict.fromkeys(node for node in (*part.nodes, *changed) if node not in event.removed)
    )
    own = data.spec.with_current(event.nodes)
    spec = merged(data.spec, (*event.removed, *changed), own)
    if not ids:
        data.parts.remove(part)
        return _rewire(data, spec, {}, removed=(part.daemon,))
    if event.starts:
        stays = tuple(node for node in ids if node not in event.starts)
        others = (node for node in spec.stopped if node not in ids)
        spec = spec.model_copy(update={"stopped": (*others, *stays)})
        data.not_added.pop(part.daemon, None)
        part.revived, part.result = True, None
        part.recovery_reason = f"{', '.join(event.starts)} was started again by a user"
        part.retry.reset()
        data.parts.mark(part)
        data.parts.move(part, PartState.MISSING)
    return _rewire(data, spec, {part.daemon: ids}, new=part)


def drop_part(data: DataflowData, part: Part, reason: str) -> list[Command]:
    """Remove a part that was added and did not start."""
    data.not_added[part.daemon] = reason
    data.parts.remove(part)
    spec = merged(data.spec, part.nodes, data.spec.with_nodes(()))
    log = Log("warning", f'dataflow {data.label} on daemon "{part.daemon}": not added: {reason}')
    return [log, *_rewire(data, spec, {}, removed=(part.daemon,))]


def _rewire(
    data: DataflowData,
    spec: DataflowSpec,
    nodes: Mapping[str, tuple[str, ...]],
    *,
    new: Part | None = None,
    removed: tuple[str, ...] = (),
) -> list[Command]:
    data.spec = spec
    data.changes += 1
    relinked = [part for part in data.parts.rewire(spec, nodes) if part is not new]
    data.completion = CompletionRule(
        spec.resolved.nodes, when_nodes_finish=spec.exit_when_nodes_finish
    )
    links = [command for part in relinked for command in data.relink(part)]
    return [SaveRecord(data.record(), spec, removed), *links]


def merged(spec: DataflowSpec, before: Collection[str], own: DataflowSpec) -> DataflowSpec:
    """Return ``spec`` with the nodes ``before`` of one part replaced by those of ``own``."""
    new = {node.id: node for node in own.resolved.nodes}
    old = {node.id for node in spec.resolved.nodes}
    kept = [
        new.get(node.id, node)
        for node in spec.resolved.nodes
        if node.id in new or node.id not in before
    ]
    nodes = (*kept, *(node for node in own.resolved.nodes if node.id not in old))
    resolved = spec.resolved.model_copy(update={"nodes": nodes})
    ids = {node.id for node in nodes}
    others = ids - new.keys()
    update = {
        "resolved": resolved,
        "descriptor": describe_dataflow(resolved),
        "places": _of(ids, {**spec.places, **own.places}),
        "code": _of(ids, updated(spec.code, own.code)),
        "params": {**_of(others, spec.params), **_of(new, own.params)},
        "stopped": (
            *(node for node in spec.stopped if node in others),
            *(node for node in own.stopped if node in new),
        ),
        "built_on": _of(ids, spec.built_on),
    }
    return spec.model_copy(update=update)


def _of(ids: Collection[str], values: Mapping[str, Value]) -> dict[str, Value]:
    return {node: value for node, value in values.items() if node in ids}
