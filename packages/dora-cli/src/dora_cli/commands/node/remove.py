"""`dora node remove`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.node.arguments import ForceHold, Grace
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
    grace: Grace = "10s",  # type: ignore[assignment]
    force: ForceHold = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a node and remove it from a running dataflow, with its edges."""
    from dora_cli.live import holds, sending
    from dora_config.protocol.runner import RemoveNode

    with connect(coordinator_addr, coordinator_port) as client, sending.reporting_interrupt():
        uuid = calls.describe(client, dataflow).uuid
        if not force:
            holds.wait_for_release(client, uuid, node)
        sending.change(client, uuid, RemoveNode(node=node, grace=grace, force=force))
    output.write(f'node "{node}" removed')
