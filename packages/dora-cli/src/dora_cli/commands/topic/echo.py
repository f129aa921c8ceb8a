"""`dora topic echo`."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli.commands.topic.arguments import EndAfter, Topics
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    connect,
    dataflow_ref,
)

MAX_JSON = 65_536
MAX_ROW = 2048
"""Most characters of one message."""


def main(
    data: Topics = None,
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, metavar="N", help="Stop after this many messages."),
    ] = None,
    duration: EndAfter = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show messages as they are sent, until Ctrl-C; with `--format json` one object a line.

    Long messages are shortened. Messages that arrive faster than they can be shown are dropped and
    counted; nodes are never slowed down.
    """
    from dora_cli.topics.stream import DropCounter, SilenceHint, message_row, watch
    from dora_config.protocol.control import WatchTopics

    as_json = output_format is options.TableFormat.JSON
    request = WatchTopics(
        dataflow=dataflow_ref(dataflow),
        topics=tuple(data or ()),
        sample_bytes=MAX_JSON if as_json else MAX_ROW,
    )
    left = count if count is not None else math.inf
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        drops, silence = DropCounter(), SilenceHint(", ".join(data or ()) or "any output")
        try:
            for update in watch(client, request, duration, tick=1.0):
                silence.update(received=update is not None and bool(update.samples))
                for text in () if update is None else update.samples:
                    output.write(text if as_json else message_row(text))
                    left -= 1
                    if left <= 0:
                        return
                drops.add({} if update is None else update.dropped)
        except KeyboardInterrupt:
            pass  # the normal end
        finally:
            drops.report()
