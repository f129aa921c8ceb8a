"""`dora node add`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.node.arguments import FromYaml
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, DataflowOption, connect


def main(
    from_yaml: FromYaml,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Add a node to a running dataflow, on the machine that its `deploy` selects.

    The file contains one node as in a dataflow file, without the list `nodes`. If the node cannot
    be started, it is not added.
    """
    from dora_cli.live import sending

    with connect(coordinator_addr, coordinator_port) as client, sending.reporting_interrupt():
        node, changed = sending.add(client, dataflow, from_yaml)
    output.write(f'node "{node}" added on daemon "{changed.daemon}"')
