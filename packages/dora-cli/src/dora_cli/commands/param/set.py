"""`dora param set`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dora_cli import options, output
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
    value: Annotated[str, typer.Argument(metavar="JSON", help="The value as JSON.")],
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Set a parameter; the node receives a PARAM_UPDATE event."""
    from dora_config.protocol.runner import Done, SetParam

    try:
        parsed = options.parse_json(value)
    except ValueError as error:
        raise typer.BadParameter(
            f"{value!r} is not valid JSON ({error}); quote text twice: '\"text\"'",
            param_hint="'JSON'",
        ) from None
    request = SetParam(node=node, key=key, value=parsed)
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        calls.call(client, dataflow, node, request, Done)
    output.write(f'set "{key}" = {json.dumps(parsed, ensure_ascii=False)} on node "{node}"')
