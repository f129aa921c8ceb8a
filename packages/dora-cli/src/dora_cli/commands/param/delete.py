"""`dora param delete`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.param.arguments import Key
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
    key: Key,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Delete a parameter; the node receives a PARAM_DELETED event."""
    from dora_config.protocol.runner import DeleteParam, Done

    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        calls.call(client, dataflow, node, DeleteParam(node=node, key=key), Done)
    output.write(f'deleted "{key}" from node "{node}"')
