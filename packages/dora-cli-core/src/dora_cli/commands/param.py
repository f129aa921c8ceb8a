"""Commands of `dora param`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect,
)
from dora_config.errors import DoraError

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient


Key = Annotated[str, typer.Argument(metavar="KEY", help="Name of the parameter.")]


def parameters(client: CoordinatorClient, dataflow: str | None, node: str) -> dict[str, object]:
    """Return the parameters of a running node."""
    from dora_config.protocol.runner import GetParams, Params

    return dict(calls.call(client, dataflow, node, GetParams(node=node), Params).values)


def list_(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    output_format: options.Output = "table",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List the parameters of a node."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        values = parameters(client, dataflow, node)
        if output_format == "json":
            for key, value in sorted(values.items()):
                output.json_line({"key": key, "value": value})
        elif values:
            rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in values.items()]
            output.table(("KEY", "VALUE"), sorted(rows))
        else:
            output.write(f'no parameters are set on node "{node}"')


def get(
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
            raise DoraError(
                f'param not found: node "{node}" has no parameter "{key}"; its parameters: {known}'
            )
        output.json_line(values[key])


def set_(
    node: NodeArgument,
    key: Key,
    value: Annotated[
        options.Json,
        typer.Argument(
            parser=options.checked(options.json_value), metavar="JSON", help="The value as JSON."
        ),
    ],
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Set a parameter; the node receives a PARAM_UPDATE event."""
    from dora_config.protocol.runner import Done, SetParam

    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        request = SetParam(node=node, key=key, value=value.value)
        calls.call(client, dataflow, node, request, Done)
        output.write(
            f'set "{key}" = {json.dumps(value.value, ensure_ascii=False)} on node "{node}"'
        )


def delete(
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
