"""`dora top`."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.monitor import (
    EDGE_COLUMNS,
    NODE_COLUMNS,
    Page,
    SortKey,
    Tables,
    View,
    edge_json,
    fitting,
    node_json,
    tables,
)
from dora_config.errors import DoraError

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.protocol.snapshot import Snapshot


def top(
    refresh_interval: Annotated[
        float,
        typer.Option(
            "--refresh-interval", min=1.0, metavar="SECONDS", help="Seconds between updates."
        ),
    ] = 2.0,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Measure for a second, print the rates and exit; needs no terminal."
        ),
    ] = False,
    output_format: Annotated[
        options.TableFormat,
        typer.Option(
            "--format", "-f", case_sensitive=False, help="With --once: tables, or JSON lines."
        ),
    ] = "json",
    dataflow: Annotated[
        str | None, typer.Option("--dataflow", "-d", help="UUID or name; by default all dataflows.")
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="NODE", help="Only this node and its edges; repeatable."),
    ] = None,
    show: Annotated[View, typer.Option("--show", help="Tables to show.")] = "all",
    sort: Annotated[SortKey, typer.Option("--sort", help="Order of the rows.")] = "name",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show load of nodes, and rates, drops, queues and latencies of edges, live.

    A `dora run` has no coordinator and is not shown here; `dora ui` shows it.

    Keys: n, c, m, r sort nodes by name, CPU, memory, restarts; s, b, d, l sort edges by messages,
    bytes, drops, latency; u sorts both by queue; tab selects the tables; q quits.
    """
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise DoraError("`dora top` needs a terminal; use --once to print the values once")
        page = Page(show, sort)
        names = frozenset(node or ())
        if not once:
            _live(client, page, dataflow, names, refresh_interval)
            return
        found = _measure(client, page, dataflow, names)
        _print(page, found, output_format)


def _snapshot(client: CoordinatorClient, page: Page, dataflow: str | None) -> Snapshot:
    from dora_config.protocol.control import GetSnapshot

    edges = page.view != "nodes"
    request = GetSnapshot(dataflow=dataflow, edges=edges)
    return client.request(request)


def _measure(
    client: CoordinatorClient, page: Page, dataflow: str | None, names: frozenset[str]
) -> Tables:
    from dora_config.protocol.snapshot import REUSED_SECONDS

    before = _snapshot(client, page, dataflow)
    _check_names(before, names)
    if page.view == "nodes":
        return tables(None, before, names)
    time.sleep(REUSED_SECONDS + 0.1)  # until the coordinator takes another snapshot
    return tables(before, _snapshot(client, page, dataflow), names)


def _check_names(snapshot: Snapshot, names: frozenset[str]) -> None:
    known = {node.node for node in snapshot.nodes}
    for name in sorted(names - known):
        listed = ", ".join(sorted(known)) or "none"
        raise DoraError(f'no running dataflow has a node "{name}"; nodes: {listed}')


def _live(
    client: CoordinatorClient,
    page: Page,
    dataflow: str | None,
    names: frozenset[str],
    interval: float,
) -> None:
    from dora_cli.screen import screen

    before, now = None, _snapshot(client, page, dataflow)
    _check_names(now, names)
    try:
        with screen() as terminal:
            updated = time.monotonic()
            while True:
                size = shutil.get_terminal_size()
                rows = tables(before, now, names)
                terminal.show(page.lines(rows, size.columns, size.lines - 1))
                key = terminal.key(max(0.0, updated + interval - time.monotonic()))
                if key in ("q", "\x1b"):
                    return
                if key is not None:
                    page.press(key)
                if key in (None, "\t"):
                    found = _snapshot(client, page, dataflow)
                    if found.time != now.time:  # else the coordinator sent the same one again
                        before, now = now, found
                    updated = time.monotonic()
    except KeyboardInterrupt:
        return


def _print(page: Page, found: Tables, style: options.TableFormat) -> None:

    for problem in found.problems:
        output.warn(problem)
    nodes = page.nodes(found) if page.view != "edges" else []
    edges = page.edges(found) if page.view != "nodes" else []
    if style == "json":
        for node in nodes:
            output.json_line(node_json(node))
        for edge in edges:
            output.json_line(edge_json(edge))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if page.view != "edges":
        titles, *rows = fitting(NODE_COLUMNS, nodes, width)
        output.table(titles, rows)
    if page.view == "all":
        output.write()
    if page.view != "nodes":
        titles, *rows = fitting(EDGE_COLUMNS, edges, width)
        output.table(titles, rows)
