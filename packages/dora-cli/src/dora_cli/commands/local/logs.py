"""`dora logs`: what nodes have logged."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort
from dora_cli.logs.log_lines import LogEntry, LogFilter, LogFormat, format_entry, parse_level
from dora_cli.logs.options import LogFilterText, LogStyle, node_levels
from dora_cli.values.times import parse_moment

POLL_INTERVAL = 0.2
"""Seconds between two looks at files that are followed."""

Dataflow = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATAFLOW]",
        help="UUID or name, with --local the beginning of a UUID; by default the last dataflow.",
        show_default=False,
    ),
]
NodeArgument = Annotated[
    str | None,
    typer.Argument(metavar="[NODE]", help="Only the log of this node.", show_default=False),
]
Node = Annotated[str | None, typer.Option("--node", "-n", help="The same as the argument NODE.")]
AllNodes = Annotated[
    bool, typer.Option("--all-nodes", help="All nodes, in the order of time (the default).")
]
Tail = Annotated[
    int | None, typer.Option("--tail", min=0, metavar="N", help="Only the last N lines.")
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
]
Local = Annotated[
    bool, typer.Option("--local", help="Read the files below ./out, ask no coordinator.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Not before: 5m ago, or RFC 3339."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Not after: 5m ago, or RFC 3339."),
]
Level = Annotated[
    str,
    typer.Option(
        "--level",
        envvar="DORA_LOG_LEVEL",
        metavar="LEVEL",
        parser=options.checked(parse_level),
        help="Lowest level: stdout (everything), trace, debug, info, warn or error.",
    ),
]
Grep = Annotated[
    str | None,
    typer.Option("--grep", metavar="TEXT", help="Only messages with this text, in any case."),
]

app = options.application()


@app.command()
def logs(
    dataflow: Dataflow = None,
    node_argument: NodeArgument = None,
    node: Node = None,
    all_nodes: AllNodes = False,
    tail: Tail = None,
    follow: Follow = False,
    local: Local = False,
    since: Since = None,
    until: Until = None,
    level: Level = "stdout",
    log_format: LogStyle = LogFormat.PRETTY,
    log_filter: LogFilterText = None,
    grep: Grep = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show the logs of a dataflow. Filters apply in the order time, level, text, tail."""
    node = _one_node(node_argument, node, all_nodes=all_nodes)
    now = time.time()
    wanted = LogFilter(
        level=level,
        per_node=node_levels(log_filter),
        since=_moment(since, now, "--since"),
        until=_moment(until, now, "--until"),
        grep=grep,
    )
    if not local:
        from dora_cli.logs import remote as remote_logs

        if remote_logs.show(
            dataflow,
            node,
            wanted,
            tail,
            log_format,
            follow=follow,
            addr=coordinator_addr,
            port=coordinator_port,
        ):
            return
        output.remark("no coordinator answers: reading the log files below ./out")
    _local(dataflow, node, wanted, tail, log_format, follow=follow)


def _one_node(argument: str | None, option: str | None, *, all_nodes: bool) -> str | None:
    """The node named by the argument or by `--node`; None: all nodes."""
    if argument is not None and option is not None and argument != option:
        raise typer.BadParameter(
            f'two nodes are named: "{argument}" as argument and "{option}" with --node; name one'
        )
    node = argument if option is None else option
    if node is not None and all_nodes:
        raise typer.BadParameter(f'a node ("{node}") and --all-nodes exclude each other')
    return node


def _moment(text: str | None, now: float, option: str) -> float | None:
    if text is None:
        return None
    try:
        return parse_moment(text, now=now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{option}'") from None


def _local(
    dataflow: str | None,
    node: str | None,
    wanted: LogFilter,
    tail: int | None,
    style: LogFormat,
    *,
    follow: bool,
) -> None:
    from dora_cli.logs import local as local_logs

    base = Path.cwd()
    chosen = local_logs.choose_dataflow(base, dataflow)
    files = local_logs.node_logs(base, chosen)
    if not follow:
        files = local_logs.select_nodes(files, node)
        _print(_last(wanted.apply(local_logs.merged(files)), tail), style)
        return
    follower = local_logs.Follower(base, chosen, node)
    try:
        # What stands in the files and what comes are read by one reader: no line twice, none lost.
        earlier = [
            entry for one in files if node in (None, one.node) for entry in one.rotated().entries()
        ]
        first = sorted([*earlier, *follower.new_entries()], key=lambda entry: entry.time)
        _print(_last(wanted.apply(first), tail), style)
        while True:
            time.sleep(POLL_INTERVAL)
            _print(wanted.apply(follower.new_entries()), style)
    except KeyboardInterrupt:
        return
    finally:
        follower.close()


def _last(entries: Iterable[LogEntry], count: int | None) -> Iterable[LogEntry]:
    return entries if count is None else deque(entries, maxlen=count)


def _print(entries: Iterable[LogEntry], style: LogFormat) -> None:
    coloured = style is LogFormat.PRETTY and output.wants_colour(sys.stdout)
    for entry in entries:
        colour = output.escape(entry.level) if coloured else None
        output.write(format_entry(entry, style, colour=colour))
