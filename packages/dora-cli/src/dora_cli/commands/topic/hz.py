"""`dora topic hz`."""

from __future__ import annotations

from typing import Annotated

from dora_cli import options
from dora_cli.commands.topic.arguments import EndAfter, Topics, positive_duration
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    connect,
    dataflow_ref,
)

MAX_WINDOW = 3600.0
"""Seconds; the limit of the wire format."""


def _window(text: str) -> float:
    seconds = positive_duration(text)
    if seconds > MAX_WINDOW:
        raise ValueError(f"{text!r}: the window is at most one hour")
    return seconds


def main(
    data: Topics = None,
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    window: Annotated[
        float, options.duration("--window", help="Time span of the statistics.", parse=_window)
    ] = 10.0,
    duration: EndAfter = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Measure the time between messages: average, minimum, maximum, standard deviation.

    A terminal shows the statistics live (q or Escape quits); otherwise they are printed every
    second, and at the end. With `--duration` they are printed once, at the end.
    """
    from dora_cli.topics import rates
    from dora_config.protocol.control import WatchTopics

    request = WatchTopics(
        dataflow=dataflow_ref(dataflow), topics=tuple(data or ()), rates=True, window=window
    )
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        rates.show(client, request, duration, output_format)
