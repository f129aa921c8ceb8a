"""A client of Foxglove's WebSocket protocol, as its viewers are."""

from __future__ import annotations

import json
import struct
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

from support.waiting import PATIENCE, wait_until
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

SUBPROTOCOL = Subprotocol("foxglove.sdk.v1")
_MESSAGE_DATA = struct.Struct("<BIQ")
_OPCODE = 1


class FoxgloveClient:
    """Connects, once a server listens on a port of this machine; a context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = ExitStack()
        self._topics: dict[int, str] = {}
        self.schemas: dict[str, str] = {}
        """By topic, as far as advertised."""

    def __enter__(self) -> FoxgloveClient:
        found = wait_until(self._connected, what="a server of Foxglove's protocol")
        assert found is not None
        self._socket = found
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def _connected(self) -> ClientConnection | None:
        address = f"ws://127.0.0.1:{self._port}"
        try:
            offered = connect(address, subprotocols=[SUBPROTOCOL], max_size=None, compression=None)
            return self._open.enter_context(offered)
        except (OSError, InvalidMessage):
            return None

    def receive(self, wanted: Mapping[str, int]) -> dict[str, list[bytes]]:
        """Subscribe to topics; return messages of each once there are as many as wanted.

        Returns fewer if the server ends.
        """
        found: dict[str, list[bytes]] = defaultdict(list)
        deadline = time.monotonic() + PATIENCE
        while any(len(found[topic]) < count for topic, count in wanted.items()):
            try:
                frame = self._socket.recv(timeout=deadline - time.monotonic())
            except ConnectionClosed:
                break
            if isinstance(frame, str):
                self._subscribe(json.loads(frame), wanted)
            elif frame[0] == _OPCODE:
                _, subscription, _ = _MESSAGE_DATA.unpack_from(frame)
                found[self._topics[subscription]].append(frame[_MESSAGE_DATA.size :])
        return found

    def _subscribe(self, message: dict[str, object], wanted: Mapping[str, int]) -> None:
        if message.get("op") != "advertise":
            return
        channels = message["channels"]
        assert isinstance(channels, list)
        for channel in channels:
            topic = channel["topic"]
            self.schemas[topic] = channel["schemaName"]
            if topic in wanted:
                self._topics[channel["id"]] = topic
                subscription = {"id": channel["id"], "channelId": channel["id"]}
                request = {"op": "subscribe", "subscriptions": [subscription]}
                self._socket.send(json.dumps(request))
