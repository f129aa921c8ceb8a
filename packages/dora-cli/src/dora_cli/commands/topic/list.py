"""`dora topic list`."""

from __future__ import annotations

from dora_cli import options, output
from dora_cli.commands.topic.arguments import inputs_by_output
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, DataflowOption, connect


def main(
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List the outputs of a dataflow and the inputs that read them."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found = calls.describe(client, dataflow)
    readers = inputs_by_output(found)
    if output_format is options.TableFormat.JSON:
        for (node, name), inputs in readers.items():
            output.json_line({"node": node, "name": name, "subscribers": inputs})
    else:
        rows = [(node, name, ", ".join(inputs)) for (node, name), inputs in readers.items()]
        output.table(("Node", "Name", "Subscribers"), rows)
