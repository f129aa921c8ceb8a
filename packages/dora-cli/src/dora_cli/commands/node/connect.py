"""`dora node connect`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import output
from dora_cli.commands.node.arguments import SourceArgument, TargetArgument, edge
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, DataflowOption, connect
from dora_node_api.queue_policy import QueuePolicy


def main(
    source: SourceArgument,
    target: TargetArgument,
    dataflow: DataflowOption = None,
    queue_size: Annotated[
        int, typer.Option("--queue-size", min=1, max=16_000, help="Messages that may be queued.")
    ] = 10,
    queue_policy: Annotated[
        QueuePolicy, typer.Option("--queue-policy", help="What happens when the queue is full.")
    ] = QueuePolicy.DROP_OLDEST,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Connect an output, a timer or logs to a new input of a running node.

    Both nodes may be on different machines.
    """
    from dora_cli.live import sending
    from dora_config.protocol.runner import ConnectInput

    request = ConnectInput.model_validate(
        {
            **edge(source, target),
            "queue_size": queue_size,
            "queue_policy": queue_policy.value,
        }
    )
    with connect(coordinator_addr, coordinator_port) as client, sending.reporting_interrupt():
        uuid = calls.describe(client, dataflow).uuid
        sending.change(client, uuid, request)
    output.write(f"connected {source} to {target}")
