"""`dora logs`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.completion import all_dataflows, nodes
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort
from dora_cli.logs.log_lines import (
    EntryPrinter,
    LogFilterText,
    LogStyle,
    node_levels,
    parse_level,
    parse_moment,
)


def logs(
    dataflow: Annotated[str | None, typer.Argument(autocompletion=all_dataflows)] = None,
    node_argument: Annotated[str | None, typer.Argument(autocompletion=nodes)] = None,
    node: Annotated[str | None, typer.Option(autocompletion=nodes)] = None,
    all_nodes: bool = False,
    tail: Annotated[int | None, typer.Option(min=0)] = None,
    follow: bool = False,
    local: bool = False,
    since: str | None = None,
    until: str | None = None,
    level: Annotated[
        str, typer.Option(envvar="DORA_LOG_LEVEL", parser=options.checked(parse_level))
    ] = "stdout",
    log_format: LogStyle = "pretty",
    log_filter: LogFilterText = None,
    grep: str | None = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show the logs of a dataflow. Filters apply in the order time, level, text, tail.

    :[DATAFLOW]: UUID or name, with --local also the start of a UUID; by default the last dataflow.
    :[NODE]: Show only the log of this node.
    :--node (-n): Same as the argument NODE.
    :--all-nodes: All nodes, by time (the default).
    :--tail N: Only the last N lines.
    :--follow, -F (-f): Show new lines as they arrive, until Ctrl-C.
    :--local: Read the files below ./out, without a coordinator.
    :--since TIME: Start time: 5m (ago) or RFC 3339.
    :--until TIME: End time: 5m (ago) or RFC 3339.
    :--level LEVEL: Lowest level: stdout (everything), trace, debug, info, warn or error.
    :--grep TEXT: Only messages that contain this text (any case).
    """
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
