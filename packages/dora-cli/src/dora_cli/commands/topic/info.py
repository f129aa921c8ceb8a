"""`dora topic info`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from dora_cli import options, output
from dora_cli.commands.topic.arguments import Topic, split_topic
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, DataflowOption, connect

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_config.protocol.runner import EdgeStatus


def main(
    data: Topic,
    dataflow: DataflowOption = None,
    duration: Annotated[float, options.duration("--duration", help="Time to measure.")] = 5.0,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show type, publisher, readers, rate and latency of an output."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found = calls.describe(client, dataflow)
        node, name = split_topic(found, data)
        before, began = _edges_of(client, found.uuid, data), time.monotonic()
        time.sleep(duration)
        after = _edges_of(client, found.uuid, data)
        took = time.monotonic() - began  # includes the time of the answer
    output.write(f"Type: {found.spec.resolved.node(node).output_types.get(name, 'not given')}")
    output.write(f"Publisher: {node} on {found.daemons[node]}")
    if not after:
        output.write("Subscribers: none, so messages are not counted")
        return
    output.write("Subscribers:")
    rows = [_flow(edge, before.get(target), took) for target, edge in after.items()]
    columns = ("INPUT", "SENT", "PER SECOND", "BANDWIDTH", "QUEUED", "DROPPED", "LATENCY P99")
    output.table(columns, rows)


def _flow(edge: EdgeStatus, before: EdgeStatus | None, seconds: float) -> tuple[object, ...]:
    sent = edge.sent - (before.sent if before else 0)
    size = edge.bytes_sent - (before.bytes_sent if before else 0)
    latency = edge.latency_us.get("p99")
    return (
        edge.target,
        edge.sent,
        f"{sent / seconds:.1f}",
        f"{size / seconds / 1e6:.2f} MB/s",
        f"{edge.queued} of {edge.bound}",
        edge.dropped,
        "-" if latency is None else f"{latency / 1000:.2f} ms",
    )


def _edges_of(client: Client, uuid: str, data: str) -> dict[str, EdgeStatus]:
    return {edge.target: edge for edge in calls.edges(client, uuid) if edge.source == data}
