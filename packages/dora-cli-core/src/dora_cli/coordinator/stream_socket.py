"""Requests with progress over one WebSocket to the coordinator.

It reads and writes frames as JSON, so that a command imports only the messages of its requests.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from dora_cli._version import __version__
from dora_cli.coordinator.errors import (
    CoordinatorLost,
    CoordinatorRefused,
    CoordinatorUnreachable,
    RequestFailed,
    lost,
    refused,
    unreachable,
)
from dora_config.access import Endpoint
from dora_config.control_plane import CONNECT_TIMEOUT, detect_lost_peer, explain, websocket_options
from dora_config.errors import RemoteProtocolError
from dora_config.protocol import VERSION
from dora_config.protocol.envelope import Message, Request

if TYPE_CHECKING:
    from dora_config.protocol.control import Answer, Failure, Progress

    Frame = Progress | Answer | Failure

A = TypeVar("A", bound=Message)


class StreamSocket:
    """One connection with any number of concurrent requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect; raises CoordinatorUnavailable, Untrusted or AccessDenied."""
        self.endpoint = endpoint
        self._last_id = 0
        with ExitStack() as stack:
            self._socket = _connect(endpoint, stack)
            self._max_message = self._handshake()
            self._close = stack.pop_all().close

    def _handshake(self) -> int:
        """Return the size in bytes of the longest message that the coordinator accepts."""
        protocol = {"major": VERSION[0], "minor": VERSION[1]}
        party = {"program": "dora", "release": __version__, "protocol": protocol}
        try:
            self._socket.send(json.dumps({"kind": "hello", "party": party}))
            reply = _parsed(self._socket.recv(CONNECT_TIMEOUT))
        except (WebSocketException, TimeoutError, EOFError) as error:
            raise CoordinatorUnreachable(
                f"no coordinator listens at {self.endpoint}: handshake failed: {error}"
            ) from error
        match reply:
            case {"kind": "welcome", "max_message_bytes": int(size)}:
                return size
            case {"kind": "refused", "message": str(message)}:
                reason = message
            case _:
                reason = "no welcome"
        raise CoordinatorRefused(
            f"the coordinator at {self.endpoint} refused the connection: {reason}"
        )

    def close(self) -> None:
        self._close()

    def send(self, request: Request[A]) -> int:
        """Send a request and return its number, which the frames of its answer carry.

        Raises CoordinatorLost, and RequestFailed if the request is too long.
        """
        assert isinstance(request, Message)
        content = request.model_dump_json()
        text = f'{{"kind":"request","id":{self._last_id + 1},"request":{content}}}'
        size = len(text.encode())
        if size > self._max_message:
            raise RequestFailed(
                f"the request has {size} bytes, more than the {self._max_message} that the "
                "coordinator accepts (max_message_bytes)",
                "failed",
            )
        self._last_id += 1
        self._write(text)
        return self._last_id

    def acknowledge(self, number: int, stream: int) -> None:
        """Request the next update of a stream."""
        self._write(json.dumps({"kind": "stream_ack", "id": number, "stream": stream}))

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of all requests; raises CoordinatorLost when the connection ends."""
        while (frame := self.next_frame()) is not None:
            yield frame

    def next_frame(self, timeout: float | None = None) -> Frame | None:
        """Return the next frame, None after ``timeout`` seconds; raises as `frames`."""
        from dora_config.protocol.control import SERVER_CODEC, Answer, Failure, Progress
        from dora_config.protocol.envelope import UnknownKind

        try:
            for content in self.json_frames(timeout):
                try:
                    frame = SERVER_CODEC.decode(content)
                except UnknownKind:
                    continue  # sent by a newer coordinator
                if isinstance(frame, Progress | Answer | Failure):
                    return frame
        except TimeoutError:
            return None
        raise AssertionError("json_frames() ends by raising")

    def json_frames(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Yield the frames of all requests as JSON objects.

        Raises CoordinatorLost when the connection ends, and TimeoutError after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                frame = _parsed(self._socket.recv(left))
            except ConnectionClosed as error:
                raise lost(self.endpoint) from error
            if frame.get("kind") == "refused":
                raise CoordinatorLost(
                    f"the coordinator closed the connection: {frame.get('message')}"
                )
            yield frame

    def _write(self, text: str) -> None:
        try:
            self._socket.send(text)
        except ConnectionClosed as error:
            raise lost(self.endpoint) from error


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        frame = json.loads(text)
    except ValueError as error:
        raise RemoteProtocolError(f"invalid message to the client: {error}") from error
    if not isinstance(frame, dict):
        raise RemoteProtocolError("invalid message to the client: not an object")
    return frame


def request_failed(failure: Failure) -> RequestFailed:
    return RequestFailed(failure.message, failure.code, failure.ended)


def _connect(endpoint: Endpoint, stack: ExitStack) -> ClientConnection:
    try:
        opened: ClientConnection = connect(
            **websocket_options(endpoint, "/api/control"),
            max_size=None,
            open_timeout=CONNECT_TIMEOUT,
            close_timeout=1,
            ping_interval=None,
        )
        stack.enter_context(opened)
        detect_lost_peer(opened.socket)
    except InvalidStatus as error:
        answer = error.response
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        body = (answer.body or b"").decode(errors="replace")
        raise refused(endpoint, answer.status_code, media_type, body) from error
    except (OSError, EOFError, WebSocketException, UnicodeError) as error:
        untrusted = explain(endpoint, error) if isinstance(error, ssl.SSLError) else None
        raise untrusted or unreachable(endpoint, error) from error
    return opened
