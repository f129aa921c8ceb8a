"""Options and rows that several `dora node` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options

if TYPE_CHECKING:
    from dora_config.protocol.snapshot import NodeSummary

MB = 1024**2
DASH = "-"

FromYaml = Annotated[
    Path,
    typer.Option("--from-yaml", metavar="FILE", help="YAML file with the definition of the node."),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="NODE/OUTPUT, or dora/timer/UNIT/VALUE or dora/logs as in a file."
    ),
]
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help="Input, as NODE/INPUT.")]
Grace = Annotated[float, options.duration("--grace", help="Time from STOP to SIGTERM.")]

ForceHold = Annotated[
    bool,
    typer.Option("--force", help="Do not wait for a node that holds updates (up to 300 s)."),
]


def edge(source: str, target: str) -> dict[str, str]:
    """Return the fields of an `EdgeChange` between two arguments; raises BadParameter."""
    from dora_config.dataflow.sources import parse_source
    from dora_config.errors import InvalidId
    from dora_config.ids import parse_data_id, parse_node_id

    try:
        node, _, output = str(parse_source(source)).partition("/")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="SOURCE") from None
    reader, slash, port = target.partition("/")
    try:
        if not slash:
            raise ValueError(f'"{target}": expected NODE/INPUT, such as plot/image')
        return {
            "source": node,
            "output": output,
            "target": parse_node_id(reader),
            "input": parse_data_id(port),
        }
    except (InvalidId, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="TARGET") from None


def as_json(node: NodeSummary) -> dict[str, object]:
    """Return a node as the object that `--format json` prints."""
    return {
        "node": node.node,
        "status": node.status,
        "pid": node.pid,
        "cpu": node.cpu_percent,
        "memory": None if node.memory_bytes is None else round(node.memory_bytes / MB, 1),
        "restarts": node.restarts,
        "daemon": node.daemon,
        "dataflow": node.dataflow,
        "dataflow_name": node.dataflow_name,
    }


def as_text(node: NodeSummary) -> dict[str, str]:
    """Return the facts about a node as text, by the column of `dora node list`."""
    cpu, memory = node.cpu_percent, node.memory_bytes
    return {
        "NODE": node.node,
        "STATUS": node.status,
        "PID": DASH if node.pid is None else str(node.pid),
        "CPU": DASH if cpu is None else f"{cpu:.1f}%",
        "MEMORY": DASH if memory is None else f"{memory / MB:.1f} MB",
        "RESTARTS": str(node.restarts),
        "DAEMON": node.daemon,
        "DATAFLOW": node.dataflow_name or node.dataflow,
    }
