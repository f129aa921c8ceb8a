"""Typed events, the alternative to event dictionaries: `node.events()` yields them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from dora_node_api.data.arrow import null_array
from dora_node_api.protocol.session import Tick

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class InputEvent:
    """A message, or the tick of a timer (its value is an empty array of null type)."""

    id: str
    value: pyarrow.Array = field(repr=False)
    metadata: Mapping[str, Any]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Make the value of a tick when it is first read."""
            if name != "value":
                raise AttributeError(f"'InputEvent' object has no attribute {name!r}")
            object.__setattr__(self, "value", null_array())
            return self.value

    @property
    def timestamp(self) -> datetime:
        """Time of the send in UTC, or what the sender set instead."""
        stamp: datetime = self.metadata["timestamp"]
        return stamp


class Sample(dict[str, Any]):
    """Messages of several inputs that were captured at the same instant.

    It is an event of the type SAMPLE, and `sample["front"]` is the `InputEvent` of the input
    `front`; `inputs` has all of them.
    """

    __slots__ = ("inputs", "spread", "time")

    def __init__(self, inputs: Mapping[str, InputEvent], time: datetime, spread: float) -> None:
        super().__init__(type="SAMPLE", id=next(iter(inputs)), kind="dora")
        self.inputs = inputs
        self.time = time
        """Capture of the first input's message, by the clock of this machine."""
        self.spread = spread
        """Seconds from the first to the last capture."""

    def __missing__(self, name: str) -> InputEvent:
        return self.inputs[name]

    def __repr__(self) -> str:
        return f"<Sample of {', '.join(self.inputs)} at {self.time}, spread {self.spread:.6f} s>"


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
    | Sample
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
        case Tick():
            tick = object.__new__(InputEvent)
            for name in ("id", "metadata"):
                object.__setattr__(tick, name, event[name])
            return tick
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
        case Sample():
            return event
        case _:
            return UnknownEvent(event)


class _Events(Protocol):
    """A node: an iterator of event dictionaries, and an asynchronous one."""

    def __next__(self) -> dict[str, Any]: ...

    async def __anext__(self) -> dict[str, Any]: ...


class EventStream:
    """A node's events, typed. Iterating takes from the same stream as the node itself."""

    def __init__(self, node: _Events) -> None:
        self._node = node

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        return from_dict(next(self._node))

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        return from_dict(await self._node.__anext__())
