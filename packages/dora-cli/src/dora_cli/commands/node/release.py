"""`dora node release`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect,
)


def main(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """End `dora node hold`."""
    from dora_config.protocol.runner import Done, HoldNode

    request = HoldNode(node=node, reason="")
    with connect(coordinator_addr, coordinator_port) as client:
        calls.call(client, dataflow, node, request, Done)
    output.write(f'node "{node}" does not hold updates any more')
