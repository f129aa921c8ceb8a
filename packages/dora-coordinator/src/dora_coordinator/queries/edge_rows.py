"""Edges of a snapshot from the counters of all machines; pure.

An edge between two machines has two queues: one into the link of the source's machine, which the
inputs of the other machine share, and one out of the link on the target's machine. Both are merged
into one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dora_config.protocol.runner import EdgeCounters, EdgeStatus
from dora_config.protocol.snapshot import EdgeSummary, MachineSample

_Leaving = Mapping[tuple[str, str, str, str], EdgeStatus]
"""Queues into links by dataflow, source, source machine and target machine."""


def edge_rows(
    samples: Mapping[str, MachineSample], names: Mapping[str, str | None]
) -> Iterator[EdgeSummary]:
    """Yield the edges of samples by machine; ``names``: the dataflows to show, with their names."""
    parts = [
        (machine, dataflow, counters)
        for machine, sample in samples.items()
        for dataflow, counters in sample.parts.items()
        if dataflow in names
    ]
    leaving = {
        (dataflow, edge.source, machine, edge.crossing.machine): edge
        for machine, dataflow, counters in parts
        for edge in counters.edges
        if edge.crossing is not None and _enters_link(edge)
    }
    for machine, dataflow, counters in parts:
        for edge in counters.edges:
            if not _enters_link(edge):
                yield _row(machine, dataflow, names[dataflow], edge, counters.at, leaving)


def _enters_link(edge: EdgeStatus) -> bool:
    return edge.crossing is not None and edge.target == f"{edge.crossing.machine} (link)"


def _row(
    machine: str,
    dataflow: str,
    name: str | None,
    edge: EdgeStatus,
    at: float,
    leaving: _Leaving,
) -> EdgeSummary:
    crossing = edge.crossing
    source_machine = machine if crossing is None else crossing.machine
    row = EdgeSummary(
        **{field: getattr(edge, field) for field in EdgeCounters.model_fields},
        dataflow=dataflow,
        dataflow_name=name,
        source_machine=source_machine,
        target_machine=machine,
        full=edge.queued >= max(1, edge.bound - 1),
        lost=0 if crossing is None else crossing.lost,
        bytes=edge.bytes_received,
        latency=edge.latency_counts,
        at=at,
    )
    start = leaving.get((dataflow, edge.source, source_machine, machine))
    if crossing is None or start is None or start.crossing is None:
        return row
    return row.model_copy(
        update={
            "sent": start.sent,
            "dropped": start.dropped + edge.dropped,
            "recent_sent": start.recent_sent,
            "recent_dropped": start.recent_dropped + edge.recent_dropped,
            # Both ends count a message that was lost between them.
            "lost": max(crossing.lost, start.crossing.lost),
            "queued": start.queued + start.crossing.waiting + edge.queued,
            "blocked": start.blocked,
            "raw_bytes": start.crossing.raw_bytes,
            "wire_bytes": start.crossing.wire_bytes,
            "uncompressed": start.crossing.uncompressed,
        }
    )
