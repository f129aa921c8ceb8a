"""`dora node restart`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.node.arguments import Grace
from dora_cli.coordinator import calls
from dora_cli.coordinator.calls import DataflowOption, NodeArgument
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect


def main(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    grace: Grace = "5s",  # type: ignore[assignment]
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop one node and start it again, regardless of its restart policy; others keep running."""
    from dora_config.protocol.runner import Done, RestartNode

    request = RestartNode(node=node, grace=grace)
    with connect(coordinator_addr, coordinator_port) as client:
        calls.call(client, dataflow, node, request, Done)
    output.write(f'node "{node}" restarted')
