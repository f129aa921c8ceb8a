"""Typed events, the alternative to event dictionaries: `node.events()` yields them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class InputEvent:
    """A message, or the tick of a timer (its value is an empty array of null type)."""

    id: str
    value: pyarrow.Array = field(repr=False)
    metadata: Mapping[str, Any]

    @property
    def timestamp(self) -> datetime:
        """Time of the send in UTC, or what the sender set instead."""
        stamp: datetime = self.metadata["timestamp"]
        return stamp


@dataclass(frozen=True, slots=True)
class InputClosed:
    """The input ended, or received nothing for its `input_timeout`."""

    id: str


@dataclass(frozen=True, slots=True)
class InputRecovered:
    """An input that had timed out receives messages again."""

    id: str


@dataclass(frozen=True, slots=True)
class NodeRestarted:
    """A node whose output this node reads was restarted."""

    id: str


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """A node whose output this node reads failed permanently."""

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
    """Reload the code of one operator, or of all if `operator` is None."""

    operator: str | None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """A received message was invalid; it was dropped and counted."""

    error: str


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of an unknown kind."""

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
    """Return the typed event of an event dictionary."""
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
