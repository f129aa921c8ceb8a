"""Shows logs that daemons store, requested through the coordinator."""

from __future__ import annotations

from dora_cli import output
from dora_cli.coordinator.client import Client, CoordinatorUnreachable
from dora_cli.coordinator.options import connect, dataflow_ref
from dora_cli.logs.log_lines import LogEntry, LogFilter, parse_log_line
from dora_cli.logs.printer import EntryPrinter
from dora_config.protocol.control import ControlProgress, DataflowRef, LogLines, LogsEnd, ReadLogs
from dora_config.protocol.dataflow import LogFilter as WireFilter


def show(
    dataflow: str | None,
    node: str | None,
    wanted: LogFilter,
    tail: int | None,
    printer: EntryPrinter,
    *,
    follow: bool,
    addr: str | None,
    port: int | None,
) -> bool:
    """Print the logs; return False, without output, if no coordinator answers."""
    try:
        client = connect(addr, port)
    except CoordinatorUnreachable:
        return False
    with client:
        try:
            request = _request(dataflow_ref(dataflow), node, wanted, tail, follow=follow)
            _show(client, request, printer, tail)
        except KeyboardInterrupt:
            pass  # the normal end of following
    return True


def _request(
    dataflow: DataflowRef, node: str | None, wanted: LogFilter, tail: int | None, *, follow: bool
) -> ReadLogs:
    """Return the request; daemons cannot filter by levels of nodes, so the printer does."""
    filter_ = WireFilter.model_validate(
        {
            "since": wanted.since,
            "until": wanted.until,
            "level": "stdout" if wanted.per_node else wanted.level,
            "grep": wanted.grep,
            "tail": None if wanted.per_node else tail,
        }
    )
    nodes = (node,) if node is not None else ()
    return ReadLogs(dataflow=dataflow, nodes=nodes, filter=filter_, follow=follow)


def _show(client: Client, request: ReadLogs, printer: EntryPrinter, tail: int | None) -> None:
    """Print lines as they arrive when following, otherwise those of all daemons by time."""
    entries: list[LogEntry] = []

    def receive(progress: ControlProgress) -> None:
        if not isinstance(progress, LogLines):
            return
        if request.follow:
            printer.print_lines(progress.lines)
        else:
            entries.extend(entry for entry in map(parse_log_line, progress.lines) if entry)

    answer = client.request(request, LogsEnd, receive)
    entries.sort(key=lambda entry: entry.time)
    printer.print(entries, tail=tail)
    for problem in answer.problems:
        output.warn(problem)
