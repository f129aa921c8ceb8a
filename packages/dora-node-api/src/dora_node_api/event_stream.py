"""A node's events as typed objects: `for event in node.events(): match event:`."""

from __future__ import annotations

from typing import Any, Protocol

from dora_node_api.events import Event, from_dict


class EventSource(Protocol):
    """A node: iterates over event dictionaries."""

    def __next__(self) -> dict[str, Any]: ...

    async def __anext__(self) -> dict[str, Any]: ...


class EventStream:
    """A node's events, typed. Iterating takes from the same stream as the node itself."""

    def __init__(self, node: EventSource) -> None:
        self._node = node

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        return from_dict(next(self._node))

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        return from_dict(await self._node.__anext__())
