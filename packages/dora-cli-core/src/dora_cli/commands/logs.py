"""`dora logs`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.completion import all_dataflows, nodes
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort
from dora_cli.logs.log_options import (
    LogFilterText,
    LogStyle,
    node_levels,
    parse_level,
    parse_moment,
)

Dataflow = Annotated[
    str | None,
    typer.Argument(
        autocompletion=all_dataflows,
        metavar="[DATAFLOW]",
        help="UUID or name, with --local also the start of a UUID; by default the last dataflow.",
    ),
]
LoggedNode = Annotated[
    str | None,
    typer.Argument(autocompletion=nodes, metavar="[NODE]", help="Show only the log of this node."),
]
NodeOption = Annotated[
    str | None,
    typer.Option("--node", "-n", autocompletion=nodes, help="Same as the argument NODE."),
]
AllNodes = Annotated[bool, typer.Option("--all-nodes", help="All nodes, by time (the default).")]
Tail = Annotated[
    int | None, typer.Option("--tail", min=0, metavar="N", help="Only the last N lines.")
]
Follow = Annotated[
    bool, typer.Option("--follow", "-F", "-f", help="Show new lines as they arrive, until Ctrl-C.")
]
Local = Annotated[
    bool, typer.Option("--local", help="Read the files below ./out, without a coordinator.")
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Start time: 5m (ago) or RFC 3339.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="End time: 5m (ago) or RFC 3339.")
]
Level = Annotated[
    str,
    typer.Option(
        "--level",
        envvar="DORA_LOG_LEVEL",
        parser=options.checked(parse_level),
        metavar="LEVEL",
        help="Lowest level: stdout (everything), trace, debug, info, warn or error.",
    ),
]
Grep = Annotated[
    str | None,
    typer.Option("--grep", metavar="TEXT", help="Only messages that contain this text (any case)."),
]


def logs(
    dataflow: Dataflow = None,
    node_argument: LoggedNode = None,
    node: NodeOption = None,
    all_nodes: AllNodes = False,
    tail: Tail = None,
    follow: Follow = False,
    local: Local = False,
    since: Since = None,
    until: Until = None,
    level: Level = "stdout",
    log_format: LogStyle = "pretty",
    log_filter: LogFilterText = None,
    grep: Grep = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show the logs of a dataflow. Filters apply in the order time, level, text, tail."""
    node = _one_node(node_argument, node, all_nodes=all_nodes)
    now = time.time()
    facts = {
        "level": level,
        "per_node": node_levels(log_filter),
        "since": _moment(since, now, "--since"),
        "until": _moment(until, now, "--until"),
        "grep": grep,
        "tail": tail,
    }
    from dora_cli.logs import files
    from dora_cli.logs.log_lines import EntryPrinter
    from dora_config.protocol.dataflow import LogFilter

    wanted = LogFilter.model_validate(facts)
    printer = EntryPrinter(log_format)
    if not local:
        from dora_cli.logs import remote

        addr, port = coordinator_addr, coordinator_port
        if remote.show(dataflow, node, wanted, printer, follow=follow, addr=addr, port=port):
            return
        output.remark(f"no coordinator answers: reading the log files below {files.here()}")
    files.show(dataflow, node, wanted, printer, follow=follow)


def _one_node(argument: str | None, option: str | None, *, all_nodes: bool) -> str | None:
    """Return the node of the argument or of `--node`, None for all nodes."""
    if argument is not None and option is not None and argument != option:
        raise typer.BadParameter(
            f'two nodes given: "{argument}" as argument and "{option}" with --node; give one'
        )
    node = argument if option is None else option
    if node is not None and all_nodes:
        raise typer.BadParameter(f'node "{node}" and --all-nodes cannot be used together')
    return node


def _moment(text: str | None, now: float, option: str) -> float | None:
    if text is None:
        return None
    try:
        return parse_moment(text, now=now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{option}'") from None
