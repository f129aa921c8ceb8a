"""`dora topic`: the outputs of running nodes, who reads them, what flows; publishing."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator import calls as node_calls
from dora_cli.coordinator import options as coordinator
from dora_cli.coordinator.calls import DataflowOption
from dora_config import DoraError
from dora_config.yaml.quantities import parse_duration

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_config.protocol.control import Described
    from dora_config.protocol.runner import EdgeStatus

Topic = Annotated[
    str, typer.Argument(metavar="NODE/OUTPUT", help="The output.", show_default=False)
]

LONGEST_JSON = 65_536
LONGEST_ROW = 2048
"""Characters that a message may take."""

LONGEST_WINDOW = 3600.0
"""Seconds; the same holds on the wire."""


def _positive_duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r}: a time above 0 is needed")
    return seconds


def _window(text: str) -> float:
    seconds = _positive_duration(text)
    if seconds > LONGEST_WINDOW:
        raise ValueError(f"{text!r}: figures are of one hour at most")
    return seconds


Topics = Annotated[
    list[str] | None,
    typer.Argument(metavar="NODE/OUTPUT", help="The outputs; all by default.", show_default=False),
]
EndAfter = Annotated[
    float | None,
    typer.Option(
        "--duration",
        metavar="DURATION",
        parser=options.checked(_positive_duration),
        help="End after so much time.",
        show_default=False,
    ),
]

app = options.application()


class NoSuchTopic(DoraError):
    """No node of the dataflow has that output."""


@app.callback()
def topic() -> None:
    """Look at the outputs of running nodes and what they send, publish on them."""


@app.command(name="list")
def list_topics(
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """List outputs and the inputs that read them."""
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        found = node_calls.describe(client, dataflow)
    readers = _readers(found)
    if output_format is options.TableFormat.JSON:
        for (node, name), subscribers in readers.items():
            output.json_line({"node": node, "name": name, "subscribers": subscribers})
    else:
        rows = [(node, name, ", ".join(them)) for (node, name), them in readers.items()]
        output.table(("Node", "Name", "Subscribers"), rows)


@app.command()
def info(
    data: Topic,
    dataflow: DataflowOption = None,
    duration: Annotated[
        float,
        typer.Option(
            "--duration",
            metavar="DURATION",
            parser=options.checked(parse_duration),
            help="How long to measure.",
        ),
    ] = 5.0,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Show type, publisher, readers and flow of an output, from the counters of its readers."""
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        found = node_calls.describe(client, dataflow)
        node, name = _known(found, data)
        before, began = _edges_of(client, found.uuid, data), time.monotonic()
        time.sleep(duration)
        after = _edges_of(client, found.uuid, data)
        took = time.monotonic() - began  # a busy machine answers late
    output.write(f"Type: {found.spec.resolved.node(node).output_types.get(name, 'not given')}")
    output.write(f"Publisher: {node} on {found.daemons[node]}")
    if not after:
        output.write("Subscribers: none, so that nothing is counted")
        return
    output.write("Subscribers:")
    rows = [_flow(edge, before.get(target), took) for target, edge in after.items()]
    columns = ("INPUT", "SENT", "PER SECOND", "BANDWIDTH", "QUEUED", "DROPPED", "LATENCY P99")
    output.table(columns, rows)


@app.command()
def pub(
    data: Topic,
    value: Annotated[
        str | None,
        typer.Argument(
            metavar="[JSON]",
            help="A list becomes an Arrow array, anything else an array of length one.",
            show_default=False,
        ),
    ] = None,
    dataflow: DataflowOption = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Take the JSON from a file.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, metavar="N", help="How often.")] = 1,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Publish a message as if the node had sent it on that output."""
    from dora_config.protocol.runner import Done, Publish

    if (value is None) == (file is None):
        raise typer.BadParameter("give the message as JSON, or a file of it with --file")
    try:
        message = options.parse_json((value or "") if file is None else file.read_text())
    except ValueError as error:
        raise typer.BadParameter(f"not JSON ({error}); text needs quotes of its own") from None
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        found = node_calls.describe(client, dataflow)
        node, name = _known(found, data)
        request = Publish(node=node, output=name, data=message)
        for _ in range(count):
            node_calls.call(client, found.uuid, node, request, Done)
    output.write(f"published {count} message{'' if count == 1 else 's'} on {data}")


@app.command()
def echo(
    data: Topics = None,
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, metavar="N", help="End after so many messages."),
    ] = None,
    duration: EndAfter = None,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Show messages as they are sent, until interrupted; with `--format json` a line for each.

    A long message is shortened, and what comes faster than it can be shown is left out and
    counted: the nodes are never slowed down.
    """
    from dora_cli.topics.topic_watch import Drops, Silence, watch
    from dora_config.protocol.control import WatchTopics

    plain = output_format is options.TableFormat.JSON
    request = WatchTopics(
        dataflow=coordinator.reference(dataflow),
        topics=tuple(data or ()),
        sample_bytes=LONGEST_JSON if plain else LONGEST_ROW,
    )
    left = count if count is not None else math.inf
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        drops, silence = Drops(), Silence(", ".join(data or ()) or "any output")
        try:
            for news in watch(client, request, duration, tick=1.0):
                silence.look(heard=news is not None and bool(news.samples))
                for text in () if news is None else news.samples:
                    output.write(text if plain else _row(text))
                    left -= 1
                    if left <= 0:
                        return
                drops.add({} if news is None else news.dropped)
        except KeyboardInterrupt:
            pass  # how watching ends
        finally:
            drops.tell()


@app.command()
def hz(
    data: Topics = None,
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    window: Annotated[
        float,
        typer.Option(
            "--window",
            metavar="DURATION",
            parser=options.checked(_window),
            help="Of how much time the figures are.",
        ),
    ] = 10.0,
    duration: EndAfter = None,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Measure the time between messages: average, shortest, longest, standard deviation.

    On a terminal the figures are shown live (q ends); elsewhere once a second. With `--duration`
    they are shown once, at the end.
    """
    from dora_cli.topics import topic_rates
    from dora_config.protocol.control import WatchTopics

    request = WatchTopics(
        dataflow=coordinator.reference(dataflow),
        topics=tuple(data or ()),
        rates=True,
        window=window,
    )
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        topic_rates.show(client, request, duration, output_format)


def _row(text: str) -> str:
    """A message for people: what stands in its JSON, on one line."""
    from dora_config.protocol.envelope import clean_text

    message = json.loads(text)

    def shown(value: object) -> str:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return clean_text(text, limit=len(text))

    row = f"{message['name']}\t data={shown(message['data'])} metadata={shown(message['metadata'])}"
    facts = message.get("shortened")
    if facts is None:
        return row
    return f"{row} (shortened: {', '.join(f'{name} {value}' for name, value in facts.items())})"


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


def _edges_of(client: Client, uuid: str, data: str) -> dict[str, EdgeStatus]:
    return {one.target: one for one in node_calls.edges(client, uuid) if one.source == data}


def _readers(found: Described) -> dict[tuple[str, str], list[str]]:
    """Inputs by output, in the order of the file."""
    readers: dict[tuple[str, str], list[str]] = {
        (node.id, name): [] for node in found.spec.resolved.nodes for name in node.outputs
    }
    for source, consumer, input_id in found.spec.resolved.edges():
        readers.setdefault((source.node, source.output), []).append(f"{consumer}/{input_id}")
    return readers


def _known(found: Described, data: str) -> tuple[str, str]:
    node, _, name = data.partition("/")
    readers = _readers(found)
    if (node, name) not in readers:
        known = ", ".join(f"{a}/{b}" for a, b in readers) or "none"
        raise NoSuchTopic(f"there is no output {data!r} in this dataflow; its outputs are: {known}")
    return node, name
