"""Events as typed objects beside the dictionaries: `for event in node.events(): match event:`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

    from dora_node_api.node import Node
    from dora_node_api.testing import MockNode


@dataclass(frozen=True, slots=True)
class InputEvent:
    """A message, or the tick of a timer (its value is an empty array of null type)."""

    id: str
    value: pyarrow.Array = field(repr=False)
    metadata: Mapping[str, Any]

    @property
    def timestamp(self) -> datetime:
        """When it was sent, in UTC (or what the sender put in its place)."""
        stamp: datetime = self.metadata["timestamp"]
        return stamp


@dataclass(frozen=True, slots=True)
class InputClosed:
    """This input brings nothing more, or nothing came for its `input_timeout`."""

    id: str


@dataclass(frozen=True, slots=True)
class InputRecovered:
    """An input that had timed out brings messages again."""

    id: str


@dataclass(frozen=True, slots=True)
class NodeRestarted:
    """A node whose output this node reads was started again."""

    id: str


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """A node whose output this node reads failed for good."""

    id: str
    error: str
    affected_inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """The last event. `reason` is `MANUAL` or `ALL_INPUTS_CLOSED`."""

    reason: str


@dataclass(frozen=True, slots=True)
class ParamUpdated:
    """A parameter was set."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class ParamDeleted:
    """A parameter was deleted."""

    key: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Code is to be loaded again: of one operator, or of all."""

    operator: str | None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Something that arrived could not be used; it was dropped and counted."""

    error: str


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a kind that this version has no name for."""

    event: Mapping[str, Any]


Event = (
    InputEvent
    | InputClosed
    | InputRecovered
    | NodeRestarted
    | NodeFailed
    | Stop
    | ParamUpdated
    | ParamDeleted
    | Reload
    | ErrorEvent
    | UnknownEvent
)


def from_dict(event: Mapping[str, Any]) -> Event:
    """The typed event that a dictionary stands for."""
    match event:
        case {"type": "INPUT", "id": name, "value": value, "metadata": metadata}:
            return InputEvent(name, value, metadata)
        case {"type": "INPUT_CLOSED", "id": name}:
            return InputClosed(name)
        case {"type": "INPUT_RECOVERED", "id": name}:
            return InputRecovered(name)
        case {"type": "NODE_RESTARTED", "id": name}:
            return NodeRestarted(name)
        case {"type": "NODE_FAILED", "id": name, "value": value}:
            return NodeFailed(name, value["error"], tuple(value["affected_input_ids"]))
        case {"type": "STOP", **more}:
            return Stop(more.get("id", "MANUAL"))
        case {"type": "PARAM_UPDATE", "id": key, "value": value}:
            return ParamUpdated(key, value)
        case {"type": "PARAM_DELETED", "id": key}:
            return ParamDeleted(key)
        case {"type": "RELOAD", **more}:
            return Reload(more.get("id"))
        case {"type": "ERROR", "error": error}:
            return ErrorEvent(error)
        case _:
            return UnknownEvent(event)


class EventStream:
    """A node's events, typed. Iterating takes from the same stream as the node itself."""

    def __init__(self, node: Node | MockNode) -> None:
        self._node = node

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        return from_dict(next(self._node))

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        return from_dict(await self._node.__anext__())
