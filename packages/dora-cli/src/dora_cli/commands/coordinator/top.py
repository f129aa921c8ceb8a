"""`dora top`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect, dataflow_ref
from dora_config import DoraError

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_config.protocol.control import NodeSummary

MB = 1024**2
DASH = "-"
COLUMNS = (
    "NODE", "STATUS", "DATAFLOW", "MACHINE", "PID", "CPU%", "MEMORY (MB)", "RESTARTS", "QUEUE",
    "I/O READ", "I/O WRITE",
)  # fmt: skip


class NoTerminal(DoraError):
    """The live page needs a terminal."""


def main(
    refresh_interval: Annotated[
        float,
        typer.Option(
            "--refresh-interval", min=1.0, metavar="SECONDS", help="Seconds between updates."
        ),
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print the nodes once and exit; needs no terminal.")
    ] = False,
    output_format: Annotated[
        options.TableFormat,
        typer.Option(
            "--format", "-f", case_sensitive=False, help="With --once: a table, or JSON lines."
        ),
    ] = options.TableFormat.JSON,
    dataflow: Annotated[
        str | None, typer.Option("--dataflow", "-d", help="UUID or name; by default all dataflows.")
    ] = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show CPU, memory and queues of nodes, live.

    Keys: n, c, m, u sort by node, CPU, memory, queue; q quits.
    """
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminal("`dora top` needs a terminal; use --once to print the nodes once")
    with connect(coordinator_addr, coordinator_port) as client:
        if not once:
            _live(client, dataflow, refresh_interval)
            return
        nodes = _ask(client, dataflow)
    if output_format is options.TableFormat.JSON:
        for node in nodes:
            output.json_line(as_json(node))
    else:
        output.table(COLUMNS, [as_cells(node) for node in ordered(nodes, "n")])


def _ask(client: Client, dataflow: str | None) -> tuple[NodeSummary, ...]:
    from dora_config.protocol.control import ListNodes, NodeList

    which = None if dataflow is None else dataflow_ref(dataflow)
    return client.request(ListNodes(dataflow=which), NodeList).nodes


def _live(client: Client, dataflow: str | None, interval: float) -> None:
    import time

    from dora_cli.screen import screen

    sorted_by = "n"
    with screen() as terminal:
        nodes = _ask(client, dataflow)
        updated = time.monotonic()
        while True:
            terminal.show(page(nodes, sorted_by))
            try:
                key = terminal.key(max(0.0, updated + interval - time.monotonic()))
            except KeyboardInterrupt:
                return
            if key in ("q", "\x1b"):
                return
            sorted_by = key if key in ORDERS else sorted_by
            if key is None:
                nodes = _ask(client, dataflow)
                updated = time.monotonic()


ORDERS: dict[str, tuple[str, Callable[[NodeSummary], tuple[object, ...]]]] = {
    "n": ("node", lambda one: (one.node, one.dataflow)),
    "c": ("CPU", lambda one: (-(one.cpu_percent or 0.0), one.node)),
    "m": ("memory", lambda one: (-(one.memory_bytes or 0), one.node)),
    "u": ("queue", lambda one: (-one.queued, one.node)),
}
"""Title and sort key by keyboard key."""


def ordered(nodes: Iterable[NodeSummary], key: str) -> list[NodeSummary]:
    """Return nodes in the order of a keyboard key."""
    return sorted(nodes, key=ORDERS[key][1])


def page(nodes: Sequence[NodeSummary], key: str) -> list[str]:
    """Return the lines of the live page."""
    rows = [[str(cell) for cell in as_cells(node)] for node in ordered(nodes, key)]
    head = f"{len(nodes)} nodes, sorted by {ORDERS[key][0]}   (n c m u: sort, q: quit)"
    return [head, "", *output.aligned(COLUMNS, rows).splitlines()]


def as_json(node: NodeSummary) -> dict[str, object]:
    """Return a node as a JSON object; sizes in bytes."""
    return {
        "node": node.node,
        "status": node.status,
        "dataflow": node.dataflow,
        "dataflow_name": node.dataflow_name,
        "machine": node.daemon,
        "pid": node.pid,
        "cpu": node.cpu_percent,
        "memory": node.memory_bytes,
        "restarts": node.restarts,
        "queue": node.queued,
        "blocked_on": node.blocked_on,
        "io_read": node.read_bytes,
        "io_write": node.written_bytes,
    }


def as_cells(node: NodeSummary) -> list[object]:
    """Return a node as a row of :data:`COLUMNS`."""
    queue = f"{node.queued} (blocked on {node.blocked_on})" if node.blocked_on else node.queued
    return [
        node.node,
        node.status,
        node.dataflow_name or node.dataflow,
        node.daemon,
        DASH if node.pid is None else node.pid,
        DASH if node.cpu_percent is None else f"{node.cpu_percent:.1f}",
        _megabytes(node.memory_bytes),
        node.restarts,
        queue,
        _megabytes(node.read_bytes),
        _megabytes(node.written_bytes),
    ]


def _megabytes(size: int | None) -> str:
    return DASH if size is None else f"{size / MB:.1f}"
