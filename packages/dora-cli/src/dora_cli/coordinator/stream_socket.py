"""Requests with progress over one WebSocket to the coordinator."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack

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
    unanswered,
    unreachable,
)
from dora_cli.coordinator.keepalive import CONNECT_TIMEOUT, detect_lost_peer
from dora_config.access import Endpoint
from dora_config.control_plane import explain, websocket_options
from dora_config.protocol.control import (
    CLIENT_CODEC,
    SERVER_CODEC,
    Answer,
    ClientRequest,
    ControlRequest,
    Failure,
    Hello,
    Progress,
    Refused,
    StreamAck,
    Welcome,
)
from dora_config.protocol.envelope import ProgramVersion, UnknownKind

Frame = Progress | Answer | Failure


class StreamSocket:
    """One connection with any number of concurrent requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect; raises CoordinatorUnavailable, Untrusted or AccessDenied."""
        self.endpoint = endpoint
        self._last_id = 0
        with ExitStack() as stack:
            self._socket = _connect(endpoint, stack)
            welcome = self._handshake()
            self._close = stack.pop_all().close
        self._max_message = welcome.max_message_bytes

    def _handshake(self) -> Welcome:
        try:
            party = ProgramVersion(program="dora", release=__version__)
            self._socket.send(CLIENT_CODEC.encode(Hello(party=party)))
            reply = SERVER_CODEC.decode(self._socket.recv(CONNECT_TIMEOUT))
        except (WebSocketException, TimeoutError, EOFError) as error:
            raise CoordinatorUnreachable(
                f"no coordinator listens at {self.endpoint}: handshake failed: {error}"
            ) from error
        if isinstance(reply, Welcome):
            return reply
        reason = reply.message if isinstance(reply, Refused) else "no welcome"
        raise CoordinatorRefused(
            f"the coordinator at {self.endpoint} refused the connection: {reason}"
        )

    def close(self) -> None:
        self._close()

    def send(self, request: ControlRequest) -> int:
        """Send a request and return its number, which the frames of its answer carry.

        Raises CoordinatorLost, and RequestFailed if the request is too long.
        """
        text = CLIENT_CODEC.encode(ClientRequest(id=self._last_id + 1, request=request))
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
        self._write(CLIENT_CODEC.encode(StreamAck(id=number, stream=stream)))

    def frames(self, timeout: float | None = None) -> Iterator[Frame]:
        """Yield the frames of all requests.

        Raises CoordinatorLost when the connection ends, and after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            frame = self.next_frame(left)
            if frame is None:
                raise unanswered(self.endpoint, timeout or 0.0)
            yield frame

    def next_frame(self, timeout: float | None = None) -> Frame | None:
        """Return the next frame, None after ``timeout`` seconds; raises as `frames`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                frame = SERVER_CODEC.decode(self._socket.recv(left))
            except UnknownKind:
                continue  # sent by a newer coordinator
            except TimeoutError:
                return None
            except ConnectionClosed as error:
                raise lost(self.endpoint) from error
            if isinstance(frame, Refused):
                raise CoordinatorLost(f"the coordinator closed the connection: {frame.message}")
            if isinstance(frame, Progress | Answer | Failure):
                return frame

    def _write(self, text: str) -> None:
        try:
            self._socket.send(text)
        except ConnectionClosed as error:
            raise lost(self.endpoint) from error


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
