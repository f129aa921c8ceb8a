"""`dora param get`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.param.arguments import Key, parameters
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect,
)
from dora_config import DoraError


class ParamNotFound(DoraError):
    """The node has no parameter of that name."""


def main(
    node: NodeArgument,
    key: Key,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Print the value of a parameter as JSON."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        values = parameters(client, dataflow, node)
    if key not in values:
        known = ", ".join(sorted(values)) or "none"
        raise ParamNotFound(
            f'param not found: node "{node}" has no parameter "{key}"; its parameters: {known}'
        )
    output.json_line(values[key])
