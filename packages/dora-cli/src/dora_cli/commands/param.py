"""`dora param`: parameters of nodes that run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator import calls as node_calls
from dora_cli.coordinator import options as coordinator
from dora_cli.coordinator.calls import DataflowOption, NodeArgument
from dora_config import DoraError

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client

Key = Annotated[str, typer.Argument(metavar="KEY", help="Its name.", show_default=False)]

app = options.application()


class ParamNotFound(DoraError):
    """A node has no parameter of that name."""


@app.callback()
def param() -> None:
    """Look at and change the parameters of running nodes."""


@app.command(name="list")
def list_params(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """List the parameters of a node."""
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        values = _values(client, dataflow, node)
    if output_format is options.TableFormat.JSON:
        for key, value in sorted(values.items()):
            output.json_line({"key": key, "value": value})
    elif values:
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in values.items()]
        output.table(("KEY", "VALUE"), sorted(rows))
    else:
        output.write(f'node "{node}" has no parameters')


@app.command()
def get(
    node: NodeArgument,
    key: Key,
    dataflow: DataflowOption = None,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Print the value of a parameter as JSON."""
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        values = _values(client, dataflow, node)
    if key not in values:
        has = f"it has: {', '.join(sorted(values))}" if values else "it has none"
        raise ParamNotFound(f'param not found: node "{node}" has no parameter "{key}"; {has}')
    output.json_line(values[key])


@app.command(name="set")
def set_param(
    node: NodeArgument,
    key: Key,
    value: Annotated[
        str, typer.Argument(metavar="JSON", help="Its value, as JSON.", show_default=False)
    ],
    dataflow: DataflowOption = None,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Set a parameter; the node is told with a PARAM_UPDATE event."""
    from dora_config.protocol.runner import Done, SetParam

    try:
        parsed = options.parse_json(value)
    except ValueError as error:
        raise typer.BadParameter(
            f"{value!r} is no JSON ({error}); text needs quotes of its own: '\"text\"'",
            param_hint="'JSON'",
        ) from None
    request = SetParam(node=node, key=key, value=parsed)
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        node_calls.call(client, dataflow, node, request, Done)
    output.write(f'set "{key}" = {json.dumps(parsed, ensure_ascii=False)} on node "{node}"')


@app.command()
def delete(
    node: NodeArgument,
    key: Key,
    dataflow: DataflowOption = None,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Delete a parameter; the node is told with a PARAM_DELETED event."""
    from dora_config.protocol.runner import DeleteParam, Done

    with coordinator.client(coordinator_addr, coordinator_port) as client:
        node_calls.call(client, dataflow, node, DeleteParam(node=node, key=key), Done)
    output.write(f'deleted "{key}" from node "{node}"')


def _values(client: Client, dataflow: str | None, node: str) -> dict[str, object]:
    from dora_config.protocol.runner import GetParams, Params

    return dict(node_calls.call(client, dataflow, node, GetParams(node=node), Params).values)
