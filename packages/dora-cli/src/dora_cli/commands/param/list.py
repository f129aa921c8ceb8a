"""`dora param list`."""

from __future__ import annotations

import json

from dora_cli import options, output
from dora_cli.commands.param.arguments import parameters
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
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List the parameters of a node."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        values = parameters(client, dataflow, node)
    if output_format is options.TableFormat.JSON:
        for key, value in sorted(values.items()):
            output.json_line({"key": key, "value": value})
    elif values:
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in values.items()]
        output.table(("KEY", "VALUE"), sorted(rows))
    else:
        output.write(f'node "{node}" has no parameters')
