"""Requests with progress over one WebSocket to the coordinator.

It reads and writes frames as JSON, so that a command imports only the messages of its requests.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from dora_cli._version import __version__
from dora_cli.coordinator.answers import decoded, failed, is_of
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
from dora_config.protocol.envelope import FollowedRequest, Message, Request

Frame = tuple[int, Message | RequestFailed]
"""Number of a request, and its progress, its answer or its failure."""


class StreamSocket:
    """One connection with any number of concurrent requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect; raises CoordinatorUnavailable, Untrusted or AccessDenied."""
        self.endpoint = endpoint
        self._requests: dict[int, Request[Message]] = {}
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

    def send(self, request: Request[Message]) -> int:
        """Send a request and return its number, which the frames of its answer carry.

        Raises CoordinatorLost, and RequestFailed if the request is too long.
        """
        assert isinstance(request, Message)
        number, content = len(self._requests) + 1, request.model_dump_json()
        text = f'{{"kind":"request","id":{number},"request":{content}}}'
        size = len(text.encode())
        if size > self._max_message:
            raise RequestFailed(
                f"the request has {size} bytes, more than the {self._max_message} that the "
                "coordinator accepts (max_message_bytes)",
                "failed",
            )
        self._requests[number] = request
        self._write(text)
        return number

    def acknowledge(self, number: int, stream: int) -> None:
        """Request the next update of a stream."""
        self._write(json.dumps({"kind": "stream_ack", "id": number, "stream": stream}))

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of all requests; raises CoordinatorLost when the connection ends."""
        while (frame := self.next_frame()) is not None:
            yield frame

    def next_frame(self, timeout: float | None = None) -> Frame | None:
        """Return the next frame, None after ``timeout`` seconds; raises as `frames`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                content = _parsed(self._socket.recv(left))
            except TimeoutError:
                return None
            except ConnectionClosed as error:
                raise lost(self.endpoint) from error
            if (frame := self._frame(content)) is not None:
                return frame

    def _frame(self, content: dict[str, Any]) -> Frame | None:
        """Return a frame; None for one that only a newer coordinator sends."""
        request = self._requests.get(content.get("id", 0))
        match content:
            case {"kind": "refused"}:
                raise CoordinatorLost(
                    f"the coordinator closed the connection: {content.get('message')}"
                )
            case {"kind": "progress", "id": number, "progress": found} if isinstance(
                request, FollowedRequest
            ):
                for kind in request.progress_types():
                    if is_of(kind, found):
                        return number, decoded(self.endpoint, kind, found)
            case {"kind": "answer", "id": number, "answer": found} if request is not None:
                return number, decoded(self.endpoint, request.answer_type(), found)
            case {"kind": "failure", "id": number} if request is not None:
                return number, failed(self.endpoint, content.get("message"), content)
        return None

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
