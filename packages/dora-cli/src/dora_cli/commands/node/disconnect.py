"""`dora node disconnect`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.node.arguments import SourceArgument, TargetArgument, edge
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, DataflowOption, connect


def main(
    source: SourceArgument,
    target: TargetArgument,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Remove an input from a running node; messages queued there are dropped.

    The node gets INPUT_CLOSED, and STOP if it was its last open input.
    """
    from dora_cli.live import sending
    from dora_config.protocol.runner import DisconnectInput

    request = DisconnectInput.model_validate(edge(source, target))
    with connect(coordinator_addr, coordinator_port) as client, sending.reporting_interrupt():
        uuid = calls.describe(client, dataflow).uuid
        sending.change(client, uuid, request)
    output.write(f"disconnected {source} from {target}")
