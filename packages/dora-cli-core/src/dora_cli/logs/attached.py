"""Attached view of a dataflow on daemons, for `dora start --attach`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.logs.ended_report import report_ended
from dora_cli.logs.log_lines import EntryPrinter
from dora_config.protocol import control


def follow(client: CoordinatorClient, uuid: str) -> bool:
    """Print log lines until the end; Ctrl-C stops the dataflow, a second one kills it.

    Return whether the dataflow succeeded. Raises RequestFailed if it cannot be stopped.
    """
    printer = EntryPrinter("pretty")
    waiting = client.streams.send(control.WaitForEnd(dataflow=uuid))
    reading = client.streams.send(control.ReadLogs(dataflow=uuid, follow=True))
    ended: control.EndedDataflow | None = None
    logs_done = False
    interrupts = 0
    while ended is None or not logs_done:
        try:
            for number, content in client.streams.frames():
                match content:
                    case control.LogLines(lines=lines):
                        printer.print_lines(lines)
                    case control.Ended(dataflows=(one,)) if number == waiting:
                        ended = one
                    case control.LogsEnd():
                        logs_done = True
                    case RequestFailed() if number == reading:
                        logs_done = True
                        output.warn(str(content))
                    case RequestFailed() if ended is None:  # of the request to wait, or of a stop
                        raise content
                if ended is not None and logs_done:
                    break
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts == 1:
                output.remark("stopping; interrupt again to kill")
                client.streams.send(control.StopDataflow(dataflow=uuid))
            else:
                client.streams.send(control.StopDataflow(dataflow=uuid, force=True))
                return False
    return report_ended(ended)
