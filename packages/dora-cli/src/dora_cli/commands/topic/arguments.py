"""Arguments, errors and look-ups that several `dora topic` commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options
from dora_cli.coordinator.completion import topics
from dora_config import DoraError
from dora_config.yaml.quantities import parse_duration

if TYPE_CHECKING:
    from dora_config.protocol.control import Described


class NoSuchTopic(DoraError):
    """The dataflow has no output of that name."""


def positive_duration(text: str) -> float:
    """Return the seconds of a duration above zero; raises ValueError."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r}: expected a duration above 0")
    return seconds


Topic = Annotated[
    str,
    typer.Argument(
        metavar="NODE/OUTPUT",
        help="The output, such as camera/image.",
        autocompletion=topics,
    ),
]
Topics = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NODE/OUTPUT",
        help="The outputs; all by default.",
        autocompletion=topics,
    ),
]
EndAfter = Annotated[
    float | None,
    options.duration("--duration", help="Stop after this time.", parse=positive_duration),
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
    """Return node and output of `NODE/OUTPUT`; raises NoSuchTopic."""
    node, _, name = topic.partition("/")
    outputs = inputs_by_output(found)
    if (node, name) not in outputs:
        known = ", ".join(f"{node}/{name}" for node, name in outputs) or "none"
        raise NoSuchTopic(f"the dataflow has no output {topic!r}; its outputs: {known}")
    return node, name
