"""Results of a flow: messages that were sent and dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from dora_config.protocol.states import NodeResult
from dora_testing.errors import FlowError, find
from dora_testing.messages import Opened


@dataclass(frozen=True)
class Sent:
    """A message on an output."""

    time: float
    """Virtual seconds after the start of the dataflow."""
    block: bytes
    """The message as the node has sent it."""

    @cached_property
    def value(self) -> Any:
        """The Arrow array."""
        return Opened(self.block).value

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The metadata, with `timestamp`."""
        return Opened(self.block).metadata

    def __repr__(self) -> str:
        return f"<Sent at {self.time:g} s: {self.value.to_pylist()!r:.60}>"


class Output(Sequence[Sent]):
    """The messages of one output, in order."""

    def __init__(self, name: str, messages: list[Sent]) -> None:
        self.name = name
        self._messages = messages

    @overload
    def __getitem__(self, place: int) -> Sent: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sent]: ...
    def __getitem__(self, place: int | slice) -> Sent | list[Sent]:
        return self._messages[place]

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def last(self) -> Sent:
        """The last message."""
        if not self._messages:
            raise FlowError(f"{self.name} has sent nothing")
        return self._messages[-1]

    @property
    def values(self) -> list[list[Any]]:
        """The value of each message as a list."""
        return [message.value.to_pylist() for message in self._messages]

    @property
    def times(self) -> list[float]:
        """The time of each message."""
        return [message.time for message in self._messages]

    def __repr__(self) -> str:
        return f"<{len(self)} messages of {self.name}>"


@dataclass(frozen=True)
class Result:
    """Result of a flow: messages that were sent and dropped, and printed lines."""

    _outputs: Mapping[str, Output]
    _drops: Mapping[str, int]
    _lines: Mapping[str, list[str]]
    nodes: Mapping[str, NodeResult]
    """End of each node."""
    seconds: float
    """Virtual seconds from the start of the dataflow to its end."""
    stop_reason: str | None
    """Why the dataflow was stopped; None: all nodes ended by themselves."""

    def __getitem__(self, output: str) -> Output:
        """Return the messages of `node/output`."""
        return find(self._outputs, output, "output")

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def dropped(self, edge: str) -> int:
        """Return how many messages were dropped at `node/input`."""
        return find(self._drops, edge, "input")

    def lines(self, node: str) -> list[str]:
        """Return what a node has printed and logged."""
        return find(self._lines, node, "node")

    def fingerprint(self) -> str:
        """Return a text that is equal for two runs with equal outputs, times and drops."""
        digest = hashlib.sha256(repr(sorted(self._drops.items())).encode())
        for name, output in sorted(self._outputs.items()):
            for message in output:
                digest.update(f"{name} {message.time!r} {len(message.block)}\n".encode())
                digest.update(message.block)
        return digest.hexdigest()
