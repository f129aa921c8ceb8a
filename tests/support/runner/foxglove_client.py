"""A client of Foxglove's WebSocket protocol, as its viewers are."""

from __future__ import annotations

import json
import re
import struct
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from support.dora import RunningDora
from support.waiting import PATIENCE, wait_until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

SUBPROTOCOL = Subprotocol("foxglove.sdk.v1")
_MESSAGE_DATA = struct.Struct("<BIQ")
_OPCODE = 1


class FoxgloveClient:
    """Connects to the `dora-foxglove` of a command, which listens on port 0; a context manager.

    A port that the test chooses could be taken by another program meanwhile.
    """

    def __init__(self, command: RunningDora) -> None:
        command.wait_for("connect to ws://")
        found = wait_until(
            lambda: re.search(r"connect to (ws://[\d.:]+)\s", command.stdout), what="a whole line"
        )
        assert found is not None
        self._connection = connect(
            found.group(1), subprotocols=[SUBPROTOCOL], max_size=None, compression=None
        )
        self._topics: dict[int, str] = {}
        self.schemas: dict[str, str] = {}
        """By topic, as far as advertised."""

    def __enter__(self) -> FoxgloveClient:
        self._socket = self._connection.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.__exit__(*error)

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
        # The server may advertise a channel just before it accepts subscriptions.
        refused = re.search(r"Unknown channel ID: (\d+)", str(message.get("message", "")))
        if refused:
            self._request(int(refused.group(1)))
        if message.get("op") != "advertise":
            return
        channels = message["channels"]
        assert isinstance(channels, list)
        for channel in channels:
            topic = channel["topic"]
            self.schemas[topic] = channel["schemaName"]
            if topic in wanted:
                self._topics[channel["id"]] = topic
                self._request(channel["id"])

    def _request(self, channel: int) -> None:
        subscription = {"id": channel, "channelId": channel}
        self._socket.send(json.dumps({"op": "subscribe", "subscriptions": [subscription]}))
