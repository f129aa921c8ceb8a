"""`dora node stop`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.node.arguments import ForceHold, Grace
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect,
)
from dora_config.protocol.rest import paths


def main(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    grace: Grace = "10s",  # type: ignore[assignment]
    force: ForceHold = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop one node permanently and wait until it has ended; other nodes keep running."""
    from dora_cli.live import holds

    wanted = {"dataflow": dataflow, "grace": grace, "force": force}
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        if not force:
            holds.wait_for_release(client, dataflow, node)
        client.post(paths.url(paths.NODES, node, "stop"), wanted)
    output.write(f'node "{node}" stopped')
