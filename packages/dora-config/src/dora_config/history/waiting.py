"""Conditions that a dataflow waits for now; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dora_config.history import entries as happened
from dora_config.history.evidence import Evidence, TimedEvent
from dora_config.history.troubles import Trouble, on
from dora_config.protocol.runner_events import (
    DataflowStopping,
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeSpawned,
)


def waits_for(
    evidence: Evidence, events: Sequence[TimedEvent], troubles: Iterable[Trouble]
) -> tuple[str, ...]:
    """Return full sentences; ``troubles``: those that are not over."""
    if evidence.ended:
        return ()
    found = [*evidence.waits_for, *_machines(evidence, troubles), *_nodes(evidence, events)]
    return tuple(dict.fromkeys(found))


def _machines(evidence: Evidence, troubles: Iterable[Trouble]) -> Iterable[str]:
    for trouble in sorted(troubles, key=lambda one: one.kind != "machine"):
        match trouble.kind:
            case "machine":
                here = [n for n, place in evidence.machine_of.items() if place == trouble.machine]
                nodes = f"; its nodes ({', '.join(here)}) may still run" if here else ""
                yield f'machine "{trouble.machine}" must connect to the coordinator again{nodes}'
            case "link":
                yield (
                    f'the link from machine "{trouble.machine}" to "{trouble.peer}": it is retried '
                    "until it succeeds"
                )
            case "part":
                yield f'the nodes on machine "{trouble.machine}" are being started again'
            case "disk":
                yield f"space on the disk{on(trouble.machine)}: make room there"
            case "wait":
                yield trouble.text
            case "node" | "input" | "dataflow":
                pass


def _nodes(evidence: Evidence, events: Sequence[TimedEvent]) -> Iterable[str]:
    last: dict[str, TimedEvent] = {}
    stopping: dict[str | None, DataflowStopping] = {}
    for timed in events:
        match timed.event:
            case (
                NodeSpawned(node=node)
                | NodeConnected(node=node)
                | NodeRestarting(node=node)
                | NodeEnded(node=node)
            ):
                last[node] = timed
            case NodeFailed(result=result):
                last[result.node] = timed
            case happened.RunBegan():
                stopping.pop(timed.machine, None)
            case happened.RunEnded():
                last = {key: one for key, one in last.items() if one.machine != timed.machine}
            case DataflowStopping():
                stopping[timed.machine] = timed.event
            case _:
                pass
    for node, timed in last.items():
        if evidence.has_removed(node, timed.machine):
            continue
        if isinstance(timed.event, NodeSpawned) and evidence.runs(node, timed.machine):
            continue  # a program without inputs and outputs need not connect
        yield from _node(evidence.now, node, timed, stopping.get(timed.machine))


def _node(
    now: float, node: str, timed: TimedEvent, stopping: DataflowStopping | None
) -> Iterable[str]:
    where = f'node "{node}"{on(timed.machine)}'
    match timed.event:
        case NodeRestarting(delay=delay, restarts=count) if stopping is None:
            left = timed.at + delay - now
            if left > 0:
                yield f"{where} is started again in {left:.0f} s (restart {count})"
            else:
                yield f"{where} is being started again (restart {count})"
        case NodeSpawned(pid=pid):
            waited = max(0.0, now - timed.at)
            yield (
                f"{where} must create its `Node()`: process {pid} has not done so for "
                f"{waited:.0f} s"
            )
        case NodeConnected() if stopping is not None:
            yield f"{where} must end: the dataflow is being stopped ({stopping.reason})"
        case NodeFailed():
            yield (
                f"{where} stays ended: its restart policy does not start it again (`dora node "
                f"restart {node}` does)"
            )
        case _:
            pass
