"""Sources in place of nodes: messages at given times, a function of time, a recording."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from dora_testing.errors import FlowError

Given = tuple[float, Any] | tuple[float, Any, Mapping[str, Any] | None]
"""Seconds after the start, data, and metadata."""


@dataclass(frozen=True, slots=True)
class Emission:
    """One message of a source."""

    at_ns: int
    """Nanoseconds after the start of the dataflow."""
    output: str
    data: Any
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Sends in place of a node; made by the functions below."""

    emissions: Callable[[str, tuple[str, ...]], Iterator[Emission]]
    """Messages of a node with these outputs, in order of time."""
    ends: bool = False
    """Whether the node ends after its last message, instead of with the dataflow."""


def from_messages(
    messages: Iterable[Given] | Mapping[str, Iterable[Given]], *, ends: bool = False
) -> Source:
    """Send these messages: tuples of seconds, data and, if any, metadata.

    Of a node with several outputs, a dict has the messages of each output. With `ends` the node
    ends after the last one, and its readers get INPUT_CLOSED.
    """
    given = (
        {name: tuple(own) for name, own in messages.items()}
        if isinstance(messages, Mapping)
        else tuple(messages)
    )

    def emissions(node: str, outputs: tuple[str, ...]) -> Iterator[Emission]:
        named = given if isinstance(given, dict) else {_only(node, outputs): given}
        streams = [
            sorted((_emission(output, one) for one in own), key=lambda emission: emission.at_ns)
            for output, own in named.items()
        ]
        return heapq.merge(*streams, key=lambda emission: emission.at_ns)

    return Source(emissions, ends)


def _emission(output: str, given: Sequence[Any]) -> Emission:
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise FlowError(
            "expected messages as tuples of seconds, data and, if any, metadata;"
            f" found {given!r:.80}"
        )
    return Emission(round(given[0] * 1e9), output, given[1], given[2] if given[2:] else None)


def from_function(
    function: Callable[[float], Any], *, every: float, output: str | None = None, start: float = 0.0
) -> Source:
    """Send what a function returns for the seconds 0, `every`, 2 `every` and so on, for ever.

    It returns data, or a tuple of data and metadata; for None nothing is sent.
    """
    if not every > 0:
        raise FlowError(f"invalid `every` of {every} seconds; it must be more than zero")

    def emissions(node: str, outputs: tuple[str, ...]) -> Iterator[Emission]:
        name = _only(node, outputs) if output is None else output
        for number in count():
            seconds = start + number * every
            value = function(seconds)
            if isinstance(value, tuple):
                yield Emission(round(seconds * 1e9), name, *value)
            elif value is not None:
                yield Emission(round(seconds * 1e9), name, value)
            # Time passes, also for a function that sends nothing.
            else:
                yield Emission(round(seconds * 1e9), "", None)

    return Source(emissions)


def _only(node: str, outputs: tuple[str, ...]) -> str:
    if len(outputs) == 1:
        return outputs[0]
    names = ", ".join(f"`{name}`" for name in outputs) or "none"
    raise FlowError(f'node "{node}" has several outputs ({names}); name the output of each message')
