"""Logs that daemons have, asked for through the coordinator."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from dora_cli import output
from dora_cli.coordinator.client import Client, CoordinatorUnreachable
from dora_cli.coordinator.options import connect, dataflow_ref
from dora_cli.logs.log_lines import LogEntry, LogFilter, LogFormat, format_entry, parse_log_line
from dora_config.protocol.control import (
    ControlProgress,
    DataflowRef,
    LogLines,
    LogsEnd,
    ReadLogs,
)
from dora_config.protocol.dataflow import LogFilter as WireFilter


class LinePrinter:
    """Prints lines of log files that pass a filter."""

    def __init__(self, wanted: LogFilter, style: LogFormat) -> None:
        self._wanted = wanted
        self._style = style
        self._coloured = style is LogFormat.PRETTY and output.wants_colour(sys.stdout)

    def print(self, lines: Iterable[str]) -> None:
        self.print_entries(entry for entry in map(parse_log_line, lines) if entry is not None)

    def print_entries(self, entries: Iterable[LogEntry]) -> None:
        for entry in self._wanted.apply(entries):
            colour = output.escape(entry.level) if self._coloured else None
            output.write(format_entry(entry, self._style, colour=colour))


def show(
    dataflow: str | None,
    node: str | None,
    wanted: LogFilter,
    tail: int | None,
    style: LogFormat,
    *,
    follow: bool,
    addr: str | None,
    port: int | None,
) -> bool:
    """Print the logs; False, and nothing printed, when there is no coordinator to ask."""
    try:
        client = connect(addr, port)
    except CoordinatorUnreachable:
        return False
    with client:
        try:
            request = _request(dataflow_ref(dataflow), node, wanted, tail, follow=follow)
            _show(client, request, wanted, style)
        except KeyboardInterrupt:
            pass  # how following ends
    return True


def _request(
    dataflow: DataflowRef, node: str | None, wanted: LogFilter, tail: int | None, *, follow: bool
) -> ReadLogs:
    """The daemons filter by what they understand; levels by node are left to the printer."""
    level = "stdout" if wanted.per_node else wanted.level
    on_daemon = WireFilter.model_validate(
        {
            "since": wanted.since,
            "until": wanted.until,
            "level": level,
            "grep": wanted.grep,
            "tail": None if wanted.per_node else tail,
        }
    )
    nodes = (node,) if node is not None else ()
    return ReadLogs(dataflow=dataflow, nodes=nodes, filter=on_daemon, follow=follow)


def _show(client: Client, request: ReadLogs, wanted: LogFilter, style: LogFormat) -> None:
    """Lines as they come when following, else in the order of time over all daemons."""
    printer = LinePrinter(wanted, style)
    entries: list[LogEntry] = []

    def take(progress: ControlProgress) -> None:
        if not isinstance(progress, LogLines):
            return
        if request.follow:
            printer.print(progress.lines)
        else:
            entries.extend(entry for entry in map(parse_log_line, progress.lines) if entry)

    answer = client.ask(request, LogsEnd, take)
    entries.sort(key=lambda entry: entry.time)
    chosen = list(wanted.apply(entries))
    if request.filter.tail is not None:
        chosen = chosen[len(chosen) - min(len(chosen), request.filter.tail) :]
    printer.print_entries(chosen)
    for problem in answer.problems:
        output.warn(problem)
