"""Events and evidence for tests of explanations, with short constructors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dora_config.history.entries import EdgeEnds, HistoryEntry, HistoryEvent
from dora_config.history.evidence import Evidence, MachineEvidence
from dora_config.protocol.runner_events import (
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeResult,
    NodeSpawned,
)

NOW = 1000.0


def entry(at: float, event: HistoryEvent) -> HistoryEntry:
    return HistoryEntry(at=at, event=event)


def spawned(at: float, node: str, pid: int = 7, restarts: int = 0) -> HistoryEntry:
    return entry(at, NodeSpawned(node=node, pid=pid, incarnation=1, restarts=restarts))


def connected(at: float, node: str, pid: int = 7) -> HistoryEntry:
    return entry(at, NodeConnected(node=node, pid=pid, incarnation=1))


def restarting(
    at: float, node: str, delay: float = 2.0, restarts: int = 1, **fields: Any
) -> HistoryEntry:
    values = {"reason": "exited with code 1", "stderr_tail": ("boom",), **fields}
    return entry(at, NodeRestarting(node=node, delay=delay, restarts=restarts, **values))


def failed(at: float, node: str, message: str = "exited with code 1") -> HistoryEntry:
    result = NodeResult(node=node, outcome="failed", message=message, stderr_tail=("boom",))
    return entry(at, NodeFailed(result=result))


def node_ended(at: float, node: str) -> HistoryEntry:
    return entry(at, NodeEnded(node=node))


def machine(name: str, *entries: HistoryEntry, **fields: Any) -> MachineEvidence:
    return MachineEvidence(machine=name, entries=entries, **fields)


def evidence(
    *machines: MachineEvidence, entries: Sequence[HistoryEntry] = (), **fields: Any
) -> Evidence:
    values = {"status": "Running", "now": NOW, "name": "demo", **fields}
    return Evidence(machines=machines, entries=tuple(entries), **values)


def edges(*pairs: str) -> tuple[EdgeEnds, ...]:
    """Return edges for texts such as ``camera/image>detector/image``."""
    return tuple(
        EdgeEnds(source=source, target=target)
        for source, _, target in (pair.partition(">") for pair in pairs)
    )
