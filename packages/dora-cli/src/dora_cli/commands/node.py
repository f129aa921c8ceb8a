"""`dora node`: the nodes of running dataflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import coordinator_options as coordinator
from dora_cli import options, output

if TYPE_CHECKING:
    from dora_config.protocol.control import NodeSummary

MB = 1024**2
DASH = "-"

app = options.application()


@app.callback()
def node() -> None:
    """Look at the nodes of running dataflows."""


@app.command(name="list")
def list_nodes(
    dataflow: Annotated[
        str | None,
        typer.Option(
            "--dataflow",
            "-d",
            help="UUID or name; by default all that run.",
            show_default=False,
        ),
    ] = None,
    output_format: options.Output = options.TableFormat.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")] = False,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """List nodes with their state, process and use of the machine."""
    from dora_config.protocol.control import ListNodes, NodeList

    which = coordinator.reference(dataflow) if dataflow is not None else None
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        nodes = client.ask(ListNodes(dataflow=which), NodeList).nodes
    if quiet:
        for one in nodes:
            output.write(one.node)
    elif output_format is options.TableFormat.JSON:
        for one in nodes:
            output.json_line(_as_json(one))
    else:
        columns = ["NODE", "STATUS", "PID", "CPU", "MEMORY", "RESTARTS", "DAEMON"]
        if which is None:
            columns.append("DATAFLOW")
        output.table(columns, [_as_cells(one)[: len(columns)] for one in nodes])
        for one in nodes:
            if one.error is not None:
                output.remark(f"{one.node}: {one.error}")


def _as_json(one: NodeSummary) -> dict[str, object]:
    return {
        "node": one.node,
        "status": one.status,
        "pid": one.pid,
        "cpu": one.cpu_percent,
        "memory": None if one.memory_bytes is None else round(one.memory_bytes / MB, 1),
        "restarts": one.restarts,
        "daemon": one.daemon,
        "dataflow": one.dataflow,
        "dataflow_name": one.dataflow_name,
    }


def _as_cells(one: NodeSummary) -> list[object]:
    cpu = DASH if one.cpu_percent is None else f"{one.cpu_percent:.1f}%"
    memory = DASH if one.memory_bytes is None else f"{one.memory_bytes / MB:.1f} MB"
    pid = DASH if one.pid is None else one.pid
    dataflow = one.dataflow_name or one.dataflow
    return [one.node, one.status, pid, cpu, memory, one.restarts, one.daemon, dataflow]
