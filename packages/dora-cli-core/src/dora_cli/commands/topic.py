"""Commands of `dora topic`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator import calls
from dora_cli.coordinator.completion import topics
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, DataflowOption, connect
from dora_config.errors import DoraError

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.protocol.control import Described
    from dora_config.protocol.runner import EdgeStatus


Topic = Annotated[
    str,
    typer.Argument(
        autocompletion=topics, metavar="NODE/OUTPUT", help="The output, such as camera/image."
    ),
]
Topics = Annotated[
    list[str] | None,
    typer.Argument(
        autocompletion=topics, metavar="NODE/OUTPUT", help="The outputs; all by default."
    ),
]
EndAfter = Annotated[
    float | None,
    options.duration("--duration", parse=options.positive_duration, help="Stop after this time."),
]


def inputs_by_output(found: Described) -> dict[tuple[str, str], list[str]]:
    """Return the inputs that read each output (node, name), in the order of the file."""
    readers: dict[tuple[str, str], list[str]] = {
        (node.id, name): [] for node in found.spec.resolved.nodes for name in node.outputs
    }
    for source, consumer, input_id in found.spec.resolved.edges():
        readers.setdefault((source.node, source.output), []).append(f"{consumer}/{input_id}")
    return readers


def split_topic(found: Described, topic: str) -> tuple[str, str]:
    """Return node and output of `NODE/OUTPUT`; raises DoraError."""
    node, _, name = topic.partition("/")
    outputs = inputs_by_output(found)
    if (node, name) not in outputs:
        known = ", ".join(f"{node}/{name}" for node, name in outputs) or "none"
        raise DoraError(f"the dataflow has no output {topic!r}; its outputs: {known}")
    return node, name


def list_(
    dataflow: DataflowOption = None,
    output_format: options.Output = "table",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List the outputs of a dataflow and the inputs that read them."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found = calls.describe(client, dataflow)
        readers = inputs_by_output(found)
        if output_format == "json":
            for (node, name), inputs in readers.items():
                output.json_line({"node": node, "name": name, "subscribers": inputs})
        else:
            rows = [(node, name, ", ".join(inputs)) for (node, name), inputs in readers.items()]
            output.table(("Node", "Name", "Subscribers"), rows)


def info(
    data: Topic,
    dataflow: DataflowOption = None,
    duration: Annotated[float, options.duration("--duration", help="Time to measure.")] = 5.0,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show type, publisher, readers, rate and latency of an output."""
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found = calls.describe(client, dataflow)
        node, name = split_topic(found, data)
        before, began = _edges_of(client, found.uuid, data), time.monotonic()
        time.sleep(duration)
        after = _edges_of(client, found.uuid, data)
        took = time.monotonic() - began  # includes the time of the answer
        output.write(f"Type: {found.spec.resolved.node(node).output_types.get(name, 'not given')}")
        output.write(f"Publisher: {node} on {found.daemons[node]}")
        if not after:
            output.write("Subscribers: none, so messages are not counted")
            return
        output.write("Subscribers:")
        rows = [_flow(edge, before.get(target), took) for target, edge in after.items()]
        columns = ("INPUT", "SENT", "PER SECOND", "BANDWIDTH", "QUEUED", "DROPPED", "LATENCY P99")
        output.table(columns, rows)


def _flow(edge: EdgeStatus, before: EdgeStatus | None, seconds: float) -> tuple[object, ...]:
    sent = edge.sent - (before.sent if before else 0)
    size = edge.bytes_sent - (before.bytes_sent if before else 0)
    latency = edge.latency_us.get("p99")
    return (
        edge.target,
        edge.sent,
        f"{sent / seconds:.1f}",
        f"{size / seconds / 1e6:.2f} MB/s",
        f"{edge.queued} of {edge.bound}",
        edge.dropped,
        "-" if latency is None else f"{latency / 1000:.2f} ms",
    )


def _edges_of(client: CoordinatorClient, uuid: str, data: str) -> dict[str, EdgeStatus]:
    return {edge.target: edge for edge in calls.edges(client, uuid) if edge.source == data}


def pub(
    data: Topic,
    value: Annotated[
        options.Json | None,
        typer.Argument(
            parser=options.checked(options.json_value),
            metavar="[JSON]",
            help="A list becomes an Arrow array, another value an array of length one.",
        ),
    ] = None,
    dataflow: DataflowOption = None,
    file: Annotated[
        options.Json | None,
        typer.Option(
            "--file",
            parser=options.checked(options.json_file),
            metavar="FILE",
            help="Read the JSON from a file.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, metavar="N", help="Number of times to publish.")
    ] = 1,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Publish a message as if the node had sent it on this output."""
    from dora_config.protocol.runner import Done, Publish

    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        message = value or file
        if message is None or (value and file):
            raise typer.BadParameter("give the message either as JSON or with --file")
        found = calls.describe(client, dataflow)
        node, name = split_topic(found, data)
        request = Publish(node=node, output=name, data=message.value)
        for _ in range(count):
            calls.call(client, found.uuid, node, request, Done)
        output.write(f"published {output.counted(count, 'message')} on {data}")


MAX_JSON = 65_536
"""Most bytes of a message that `--format json` shows."""
MAX_ROW = 2048
"""Most characters of a message in text output."""


def echo(
    data: Topics = None,
    dataflow: DataflowOption = None,
    output_format: options.Output = "table",
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

    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        as_json = output_format == "json"
        request = WatchTopics(
            dataflow=dataflow,
            topics=tuple(data or ()),
            sample_bytes=MAX_JSON if as_json else MAX_ROW,
        )
        left = count if count is not None else math.inf
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
            pass  # ends the command normally
        finally:
            drops.report()


MAX_WINDOW = 3600.0
"""Largest window in seconds; the limit of the wire format."""


def _window(text: str) -> float:
    seconds = options.positive_duration(text)
    if seconds > MAX_WINDOW:
        raise ValueError(f"{text!r}: the window is at most one hour")
    return seconds


def hz(
    data: Topics = None,
    dataflow: DataflowOption = None,
    output_format: options.Output = "table",
    window: Annotated[
        float, options.duration("--window", parse=_window, help="Time span of the statistics.")
    ] = 10.0,
    duration: EndAfter = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Measure the time between messages: average, minimum, maximum, standard deviation.

    A terminal shows the statistics live (q or Escape quits); otherwise they are printed every
    second, and at the end. With `--duration` they are printed once, at the end.
    """
    from dora_cli.topics import stream
    from dora_config.protocol.control import WatchTopics

    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        request = WatchTopics(
            dataflow=dataflow, topics=tuple(data or ()), rates=True, window=window
        )
        stream.show_rates(client, request, duration, output_format)
