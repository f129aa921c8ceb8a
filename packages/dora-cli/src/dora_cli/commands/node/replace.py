"""`dora node replace`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.node.arguments import ForceHold, FromYaml, Grace
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect,
)


def main(
    node: NodeArgument,
    from_yaml: FromYaml,
    dataflow: DataflowOption = None,
    grace: Grace = "10s",  # type: ignore[assignment]
    force: ForceHold = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Run another definition of a node; other nodes keep running.

    The new process starts first; when it has connected, the old one is stopped. If the new one
    fails before that, the old one keeps running. Inputs are queued meanwhile.

    The file contains one node with the same id and inputs, without the list `nodes`.
    """
    from dora_cli.live import sending

    with connect(coordinator_addr, coordinator_port) as client, sending.reporting_interrupt():
        changed = sending.replace(client, dataflow, node, from_yaml, grace, force=force)
    output.write(f'node "{node}" replaced on daemon "{changed.daemon}"')
