"""Shows log files of this machine, for `dora logs --local`."""

from __future__ import annotations

import time
from pathlib import Path

from dora_cli.logs.files import Follower, choose_dataflow, merged, node_logs, select_nodes
from dora_cli.logs.printer import EntryPrinter

POLL_INTERVAL = 0.2
"""Seconds between two reads of followed files."""


def show(
    dataflow: str | None, node: str | None, tail: int | None, printer: EntryPrinter, *, follow: bool
) -> None:
    """Print the logs below `./out`; ``follow``: until Ctrl-C. Raises NoSuchLogs."""
    base = Path.cwd()
    chosen = choose_dataflow(base, dataflow)
    if not follow:
        printer.print(merged(select_nodes(node_logs(base, chosen), node)), tail=tail)
        return
    follower = Follower(base, chosen, node)
    try:
        # The follower also reads the present content of files that grow, so that no line is shown
        # twice or lost in between.
        first = [*follower.rotated_entries(), *follower.new_entries()]
        printer.print(sorted(first, key=lambda entry: entry.time), tail=tail)
        while True:
            time.sleep(POLL_INTERVAL)
            printer.print(follower.new_entries())
    except KeyboardInterrupt:
        return
    finally:
        follower.close()
