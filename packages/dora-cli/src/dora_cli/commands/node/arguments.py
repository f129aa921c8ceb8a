"""Options and rows that several `dora node` commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from dora_cli import options

if TYPE_CHECKING:
    from dora_cli.coordinator.rows import NodeRow

MB = 1024**2
DASH = "-"

Grace = Annotated[float, options.duration("--grace", help="Time from STOP to SIGTERM.")]


def as_json(node: NodeRow) -> dict[str, object]:
    """Return a node as the object that `--format json` prints."""
    return {
        "node": node["node"],
        "status": node["status"],
        "pid": node["pid"],
        "cpu": node["cpu_percent"],
        "memory": None if node["memory_bytes"] is None else round(node["memory_bytes"] / MB, 1),
        "restarts": node["restarts"],
        "daemon": node["daemon"],
        "dataflow": node["dataflow"],
        "dataflow_name": node["dataflow_name"],
    }


def as_cells(node: NodeRow) -> list[object]:
    """Return a node as a row: id, status, pid, CPU, memory, restarts, daemon, dataflow."""
    cpu = DASH if node["cpu_percent"] is None else f"{node['cpu_percent']:.1f}%"
    memory = DASH if node["memory_bytes"] is None else f"{node['memory_bytes'] / MB:.1f} MB"
    pid = DASH if node["pid"] is None else node["pid"]
    dataflow = node["dataflow_name"] or node["dataflow"]
    return [
        node["node"],
        node["status"],
        pid,
        cpu,
        memory,
        node["restarts"],
        node["daemon"],
        dataflow,
    ]
