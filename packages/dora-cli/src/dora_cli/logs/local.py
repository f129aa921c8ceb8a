"""Shows log files of this machine, for `dora logs --local`."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from dora_cli.logs.files import LogFiles, NoSuchLogs, choose_dataflow, log_files
from dora_cli.logs.printer import EntryPrinter
from dora_config.ids import file_stem

POLL_INTERVAL = 0.2
"""Seconds between two reads of followed files."""


def show(
    dataflow: str | None, node: str | None, tail: int | None, printer: EntryPrinter, *, follow: bool
) -> None:
    """Print the logs below `./out`; ``follow``: until Ctrl-C. Raises NoSuchLogs."""
    base = Path.cwd()
    chosen = choose_dataflow(base, dataflow)
    known = log_files(base, chosen)
    if node is not None and not follow and file_stem(node) not in known:
        raise NoSuchLogs(
            f'no log file of node "{node}"; nodes with logs: {", ".join(known) or "none"}'
        )
    with closing(LogFiles(base, chosen, node)) as logs:
        try:
            printer.print(logs.new_entries(), tail=tail)
            while follow:
                time.sleep(POLL_INTERVAL)
                printer.print(logs.new_entries())
        except KeyboardInterrupt:
            if not follow:
                raise
