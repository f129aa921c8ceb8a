"""A node that serves its inputs to Foxglove and Lichtblick over WebSockets.

`FOXGLOVE_HOST` (127.0.0.1) and `FOXGLOVE_PORT` (8765) are the address that it listens on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dora_recordings.foxglove_messages import MessageTypes, json_message, schema_name

from .viewer_node import CannotShow, DataViewer, ViewerInput, ViewerMessage

if TYPE_CHECKING:
    from dora_node_api.node import Node

BACKLOG = 64
"""Most messages that wait for a slow client; later messages replace the oldest."""


def read_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port; port 0 lets the system choose. Raises CannotShow."""
    given = environ.get("FOXGLOVE_PORT", "8765")
    if not given.isdecimal() or int(given) > 65535:
        raise CannotShow(f'FOXGLOVE_PORT is "{given}"; expected a port, 0 to 65535')
    return environ.get("FOXGLOVE_HOST", "127.0.0.1"), int(given)


class FoxgloveViewer(DataViewer):
    """Channels of a server, one for each output and schema."""

    def __init__(self, server: Any, types: MessageTypes) -> None:
        self._server = server
        self._types = types
        self._channels: dict[tuple[str, str], Any] = {}

    def accepts(self, source: ViewerInput) -> bool:
        """Whether the input has subscribers, or its channel does not exist yet."""
        channels = [one for (name, _), one in self._channels.items() if name == source.name]
        return not channels or any(one.has_sinks() for one in channels)

    def show(self, message: ViewerMessage) -> None:
        channel = self._channel(message)
        if not channel.has_sinks():
            return
        if message.kind is None or message.visual is None:
            data = json_message(message.array, message.metadata)
        else:
            data = self._types.encode(
                message.kind, message.visual, message.nanoseconds, message.frame
            )
        channel.log(data, log_time=message.nanoseconds)

    def _channel(self, message: ViewerMessage) -> Any:
        import foxglove

        schema = schema_name(message.kind)
        key = message.input.name, schema
        if key not in self._channels:
            encoding, schema_encoding, data = self._types.described(schema)
            self._channels[key] = foxglove.Channel(
                self._topic(message.input, schema),
                message_encoding=encoding,
                schema=foxglove.Schema(name=schema, encoding=schema_encoding, data=data),
            )
        return self._channels[key]

    def _topic(self, source: ViewerInput, schema: str) -> str:
        """Return the name of the output, as in exported recordings."""
        shared = any(name == source.name for name, _ in self._channels)
        return f"/{source.source}" + (f"/{schema.rpartition('.')[2]}" if shared else "")

    def close(self) -> None:
        self._server.stop()


def _start(node: Node, host: str, port: int, types: MessageTypes) -> FoxgloveViewer:
    import foxglove

    name = node.dataflow_descriptor().get("name") or node.node_id
    try:
        server = foxglove.start_server(
            name=str(name), host=host, port=port, message_backlog_size=BACKLOG
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise CannotShow(
            f"cannot listen on {host}:{port}: {error}; choose another FOXGLOVE_PORT"
        ) from error
    node.log("info", f"Foxglove and Lichtblick connect to ws://{host}:{server.port}")
    if not _is_loopback(host):
        node.log(
            "warn",
            f"every computer that reaches {host}:{server.port} can read the inputs of this node:"
            " the protocol of Foxglove has no authentication",
        )
    return FoxgloveViewer(server, types)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def starter(environ: Mapping[str, str]) -> Callable[[Node], FoxgloveViewer]:
    """Return a function that starts the server for a node. Raises CannotShow, ImportError."""
    import foxglove  # noqa: F401

    host, port = read_address(environ)
    types = MessageTypes()
    return lambda node: _start(node, host, port, types)
