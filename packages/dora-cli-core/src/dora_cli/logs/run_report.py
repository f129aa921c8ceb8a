"""Output about a run: log lines of all nodes, failures, the result."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from dora_cli import output
from dora_cli.logs.ended_report import failure_text
from dora_cli.logs.log_lines import EntryPrinter
from dora_cli.logs.log_options import LogFormat
from dora_config.dataflow.sources import LogLevel
from dora_config.protocol import runner_events as happened
from dora_config.protocol.runner_events import (
    DataflowResult,
    LogLine,
    RunOutput,
    passes,
)
from dora_config.streams import discard


class RunPrinter:
    """Prints the events of a runner; not thread-safe.

    The runner filters log lines of nodes; `level` applies to lines of dora about nodes.
    """

    def __init__(self, style: LogFormat, level: str) -> None:
        self._printer = EntryPrinter(style)
        self._level = level
        self._readerless = False
        from dora_daemon.lifecycle_lines import LifecycleLines  # other reports do not need it

        self._lifecycle_lines = LifecycleLines()

    def show(self, event: RunOutput) -> None:
        """Print an event unless it is internal."""

        match event:
            case happened.LogLine():
                self._print(event)
            case happened.LogLinesDropped(count=count):
                output.remark(
                    f"{count} log lines not shown: they arrive faster than they can be printed "
                    "(the log files contain them)"
                )
            case happened.DataflowStopping(reason=reason, grace=grace) if grace > 0:
                again = " again" if reason.startswith("signal") else ""
                output.remark(
                    f"stopping ({reason}): nodes have {grace:g} s; Ctrl-C{again} kills them"
                )
            case _:
                line = self._lifecycle_lines.line(event)
                if line is not None:
                    self._print_own(line.level, f'node "{line.node}" {line.message}')

    def _print_own(self, level: LogLevel, message: str) -> None:
        """Print a line of dora about a node."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = LogLine(ts=now, level=level, message=message)
        if passes(entry.level, self._level):
            self._print(entry)

    def _print(self, entry: LogLine) -> None:
        if self._readerless:
            return
        try:
            self._printer.print_one(entry)
        except BrokenPipeError:
            self._stop_without_reader()
        except OSError as error:  # a full disk must not stop a robot
            self._readerless = True
            discard(sys.stdout)
            output.remark(
                f"cannot write to standard output ({error.strerror}): log lines are only in the "
                "log files from now on"
            )

    def _stop_without_reader(self) -> None:
        """Stop the dataflow as Ctrl-C does: the reader has gone (`dora run ... | head`)."""
        self._readerless = True
        discard(sys.stdout)
        os.kill(os.getpid(), signal.SIGINT)


def report_result(result: DataflowResult) -> bool:
    """Print why a dataflow failed, first cause first; return whether it succeeded."""
    if result.ok:
        return True
    if result.error is not None:
        output.failure(result.error)
        return False
    for node in result.root_causes:
        output.failure(failure_text(node.node, node.message, node.stderr_tail))
    if result.cascading:
        output.remark(output.counted(len(result.cascading), "more consequential error"))
    if result.log_dir is not None and Path(result.log_dir).is_dir():
        output.remark(f"logs: {_short(result.log_dir)}")
    return False


def _short(directory: str) -> str:
    path = Path(directory)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else directory
