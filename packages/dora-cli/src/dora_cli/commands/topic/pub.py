"""`dora topic pub`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli.commands.topic.arguments import Topic, split_topic
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, DataflowOption, connect


def main(
    data: Topic,
    value: Annotated[
        str | None,
        typer.Argument(
            metavar="[JSON]",
            help="A list becomes an Arrow array, another value an array of length one.",
        ),
    ] = None,
    dataflow: DataflowOption = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Read the JSON from a file.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, metavar="N", help="Number of times to publish.")
    ] = 1,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Publish a message as if the node had sent it on this output."""
    from dora_config.protocol.runner import Done, Publish

    if (value is None) == (file is None):
        raise typer.BadParameter("give the message either as JSON or with --file")
    try:
        message = options.parse_json((value or "") if file is None else file.read_text())
    except ValueError as error:
        raise typer.BadParameter(
            f"message is not valid JSON ({error}); quote text twice: '\"text\"'"
        ) from None
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found = calls.describe(client, dataflow)
        node, name = split_topic(found, data)
        request = Publish(node=node, output=name, data=message)
        for _ in range(count):
            calls.call(client, found.uuid, node, request, Done)
    output.write(f"published {output.counted(count, 'message')} on {data}")
