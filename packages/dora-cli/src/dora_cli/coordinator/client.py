"""Typed calls to the coordinator over one WebSocket; prints nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from dora_cli._version import __version__
from dora_config import DoraError
from dora_config.access import Endpoint
from dora_config.protocol.control import (
    CLIENT_CODEC,
    SERVER_CODEC,
    Answer,
    Cancel,
    ClientRequest,
    ControlAnswer,
    ControlProgress,
    ControlRequest,
    EndedDataflow,
    Failure,
    FailureCode,
    Hello,
    Progress,
    Refused,
    StreamAck,
    Welcome,
)
from dora_config.protocol.envelope import ProgramVersion, UnknownKind

CONNECT_TIMEOUT = 5.0
"""Seconds until a coordinator that does not answer counts as not there."""

T = TypeVar("T", bound=ControlAnswer)
Frame = Progress | Answer | Failure


class CoordinatorUnreachable(DoraError):
    """Nobody answers at the address of the coordinator."""


class AccessDenied(DoraError):
    """The coordinator does not accept this account's token."""


class ConnectionLost(DoraError):
    """The coordinator went away before it had answered."""


class RequestFailed(DoraError):
    """The coordinator says why it cannot do what was asked; `code` is its kind of reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.code: FailureCode = failure.code
        self.ended: EndedDataflow | None = failure.ended


class Client:
    """A context manager; one connection, any number of requests at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect and greet; raises CoordinatorUnreachable, AccessDenied or ConnectionLost."""
        self.endpoint = endpoint
        self._last_id = 0
        with ExitStack() as stack:
            self._socket = _connect(endpoint, stack)
            welcome = self._greet()
            self._close = stack.pop_all().close
        self._max_message = welcome.max_message_bytes
        self.coordinator = welcome.party

    def _greet(self) -> Welcome:
        try:
            party = ProgramVersion(program="dora", release=__version__)
            self._socket.send(CLIENT_CODEC.encode(Hello(party=party)))
            greeting = SERVER_CODEC.decode(self._socket.recv(CONNECT_TIMEOUT))
        except (WebSocketException, TimeoutError, EOFError) as error:
            raise CoordinatorUnreachable(
                f"what listens at {self.endpoint} does not greet as a coordinator: {error}"
            ) from error
        if not isinstance(greeting, Welcome):
            reason = greeting.message if isinstance(greeting, Refused) else "no welcome"
            raise ConnectionLost(f"the coordinator at {self.endpoint} refuses: {reason}")
        return greeting

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def send(self, request: ControlRequest) -> int:
        """Ask without waiting; the number that its frames carry."""
        self._last_id += 1
        text = CLIENT_CODEC.encode(ClientRequest(id=self._last_id, request=request))
        if len(text.encode()) > self._max_message:
            raise RequestFailed(
                Failure(
                    id=self._last_id,
                    message=f"the request takes {len(text.encode())} bytes, the coordinator takes "
                    f"{self._max_message} (its setting max_message_bytes)",
                )
            )
        self._write(text)
        return self._last_id

    def cancel(self, number: int) -> None:
        """Say that the answer is no longer wanted."""
        self._write(CLIENT_CODEC.encode(Cancel(id=number)))

    def taken(self, number: int, stream: int) -> None:
        """Say that the last news of a stream were shown and more are wanted."""
        self._write(CLIENT_CODEC.encode(StreamAck(id=number, stream=stream)))

    def frames(self) -> Iterator[Frame]:
        """Whatever comes, of any request; raises ConnectionLost at the end of the connection."""
        while True:
            frame = self.next_frame()
            if frame is not None:
                yield frame

    def next_frame(self, timeout: float | None = None) -> Frame | None:
        """The next frame, None when none came within ``timeout`` seconds; else as `frames`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                frame = SERVER_CODEC.decode(self._socket.recv(left))
            except UnknownKind:
                continue  # of a newer coordinator
            except TimeoutError:
                return None
            except ConnectionClosed as error:
                raise ConnectionLost(
                    f"the coordinator at {self.endpoint} closed the connection"
                ) from error
            if isinstance(frame, Refused):
                raise ConnectionLost(f"the coordinator refuses: {frame.message}")
            if isinstance(frame, Progress | Answer | Failure):
                return frame

    def wait_until_gone(self) -> None:
        """Until nobody listens at the coordinator's address any more (or a few seconds)."""
        address = (self.endpoint.host, self.endpoint.port)
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while time.monotonic() < deadline:
            try:
                socket.create_connection(address, CONNECT_TIMEOUT).close()
            except OSError:
                return
            time.sleep(0.02)

    def ask(
        self,
        request: ControlRequest,
        expected: type[T],
        on_progress: Callable[[ControlProgress], None] | None = None,
    ) -> T:
        """The answer to one request; raises RequestFailed. Frames of other requests are skipped."""
        number = self.send(request)
        for frame in self.frames():
            if frame.id != number:
                continue
            match frame:
                case Progress(progress=progress):
                    if on_progress is not None:
                        on_progress(progress)
                case Failure():
                    raise RequestFailed(frame)
                case Answer(answer=answer):
                    if isinstance(answer, expected):
                        return answer
                    raise ConnectionLost(f"the coordinator answered with {answer.kind!r}")
        raise AssertionError("frames() ends by raising")

    def _write(self, text: str) -> None:
        try:
            self._socket.send(text)
        except ConnectionClosed as error:
            raise ConnectionLost(
                f"the coordinator at {self.endpoint} closed the connection"
            ) from error


def _connect(endpoint: Endpoint, stack: ExitStack) -> ClientConnection:
    try:
        return stack.enter_context(
            connect(
                endpoint.url("/api/control"),
                additional_headers=endpoint.headers(),
                compression=None,
                max_size=None,
                open_timeout=CONNECT_TIMEOUT,
                close_timeout=1,
                ping_interval=None,
                proxy=None,
            )
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status == 401:
            problem = (
                "has another token than this account"
                if endpoint.token
                else "requires a token, and this account has none"
            )
            raise AccessDenied(
                f"the coordinator at {endpoint} {problem}: copy ~/.config/dora/token of the "
                "coordinator's account to this one (mode 0600), or set DORA_AUTH_TOKEN"
            ) from error
        body = error.response.body.decode(errors="replace").strip() if error.response.body else ""
        raise CoordinatorUnreachable(
            f"what listens at {endpoint} answers with HTTP status {status} {body}".rstrip()
        ) from error
    except (OSError, EOFError, WebSocketException, UnicodeError) as error:
        raise CoordinatorUnreachable(
            f"cannot connect to the coordinator at {endpoint} ({error}); start one on this machine "
            "with `dora up`, or name another with --coordinator-addr"
        ) from error
