"""`dora node list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.commands.node.arguments import as_json, as_text
from dora_cli.coordinator.completion import running_dataflows
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_config.protocol.snapshot import NodeSummary


def main(
    dataflow: Annotated[
        str | None,
        typer.Option(
            "--dataflow",
            "-d",
            help="UUID or name; by default all running dataflows.",
            autocompletion=running_dataflows,
        ),
    ] = None,
    output_format: options.Output = options.TableFormat.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List nodes with status, pid, CPU, memory and restarts."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found = client.get(paths.url(paths.NODES, query={"dataflow": dataflow}))
    nodes: list[NodeSummary] = found.nodes
    if quiet:
        for node in nodes:
            output.write(node.node)
    elif output_format is options.TableFormat.JSON:
        for node in nodes:
            output.json_line(as_json(node))
    else:
        columns = ["NODE", "STATUS", "PID", "CPU", "MEMORY", "RESTARTS", "DAEMON"]
        if dataflow is None:
            columns.append("DATAFLOW")
        rows = [as_text(node) for node in nodes]
        output.table(columns, [[row[column] for column in columns] for row in rows])
        for node in nodes:
            if node.error is not None:
                output.remark(f"{node.node}: {node.error}")
            if node.held is not None:
                output.remark(f"{node.node}: holds updates: {node.held}")
