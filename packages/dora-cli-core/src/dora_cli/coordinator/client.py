"""Requests to the coordinator: HTTPS for an answer, a WebSocket for streams."""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.coordinator.answers import decoded, failed
from dora_cli.coordinator.errors import (
    CoordinatorRefused,
    RequestFailed,
    lost,
    refused,
    unanswered,
    unexpected,
    unreachable,
)
from dora_config.access import Endpoint, endpoint, split_address
from dora_config.control_plane import CONNECT_TIMEOUT, ControlConnection
from dora_config.protocol import VERSION
from dora_config.protocol.envelope import FollowedRequest, Message, Query, Request
from dora_config.protocol.rest import paths

QUERY_TIMEOUT: Final = 30.0
"""Seconds for the answer to a query; a coordinator may be busy with its fleet."""
_REFUSED_STATUSES: Final = (401, 403, 426, 429, 503)
"""HTTP statuses that refuse any request; 503 also while the coordinator ends."""

A = TypeVar("A", bound=Message)
P = TypeVar("P", bound=Message)

if TYPE_CHECKING:
    from dora_cli.coordinator.stream_socket import StreamSocket


class CoordinatorClient:
    """Connections to the coordinator, opened by the first request; a context manager."""

    def __init__(
        self,
        at: Endpoint,
        *,
        timeout: float | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """``timeout``: seconds for a connection and for the answer to a query; None: defaults."""
        self.endpoint = at
        self._on_close = on_close
        connect, query = (CONNECT_TIMEOUT, QUERY_TIMEOUT) if timeout is None else (timeout, timeout)
        self._connect_timeout = connect
        self._connection = ControlConnection(at, timeout=connect)
        self._query_timeout = query
        self.successor: str | None = None
        """Address of the coordinator that has replaced this one, once that was reported."""
        self._streams: StreamSocket | None = None

    def __enter__(self) -> CoordinatorClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        if self._streams is not None:
            self._streams.close()
        self._on_close()

    def abort(self) -> None:
        """End the request that another thread waits for."""
        link = self._connection.sock
        if link is not None:
            with suppress(OSError):
                socket.socket.shutdown(link, socket.SHUT_RDWR)

    def request(self, request: Request[A], *, timeout: float | None = None) -> A:
        """Return the answer to a request.

        ``timeout``: seconds after which CoordinatorLost is raised; None: the default of queries.
        Raises CoordinatorUnavailable, Untrusted, AccessDenied and RequestFailed.
        """
        assert isinstance(request, Message)
        if timeout is None and isinstance(request, Query):
            timeout = self._query_timeout
        answer = self._exchange(request.model_dump_json().encode(), timeout)
        return decoded(self.endpoint, request.answer_type(), answer)

    def follow(self, request: FollowedRequest[A, P], show: Callable[[P], None]) -> A:
        """Return the answer to a request, and pass on its progress before; raises as `request`."""
        number = self.streams.send(request)
        for found, content in self.streams.frames():
            if found != number:
                continue
            if isinstance(content, RequestFailed):
                raise content
            if isinstance(content, request.answer_type()):
                return content
            if isinstance(content, request.progress_types()):
                show(content)
        raise AssertionError("frames() ends by raising")

    @property
    def streams(self) -> StreamSocket:
        """The WebSocket, opened at its first use; raises as `StreamSocket`."""
        if self._streams is None:
            from dora_cli.coordinator.stream_socket import StreamSocket

            self._streams = StreamSocket(self.endpoint)
        return self._streams

    def wait_until_gone(self) -> None:
        """Wait until the coordinator no longer listens, a few seconds at most."""
        address = (self.endpoint.host, self.endpoint.port)
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while time.monotonic() < deadline:
            try:
                socket.create_connection(address, CONNECT_TIMEOUT).close()
            except OSError:
                return
            time.sleep(0.02)

    # -------------------------------------------------------------------------- HTTP

    def _exchange(self, body: bytes, timeout: float | None) -> bytes:
        """Return the JSON text of an answer; raises its error."""
        status, kind, content = self._fetch(body, timeout)
        if status == 401 and self._has_newer_token():
            status, kind, content = self._fetch(body, timeout)
        if kind != paths.JSON_TYPE:
            raise refused(self.endpoint, status, kind, content.decode(errors="replace"))
        if status < 400:
            return content
        try:
            match json.loads(content):
                case {"error": str(sentence), "code": str(code), **rest}:
                    failure = {"code": code, "ended": rest.get("ended")}
                case found:
                    raise ValueError(found)
        except ValueError as error:
            raise unexpected(self.endpoint, error) from error
        if status in _REFUSED_STATUSES:
            raise refused(self.endpoint, status, kind, sentence)
        if code == "version":
            raise CoordinatorRefused(f"the coordinator at {self.endpoint}: {sentence}")
        raise failed(self.endpoint, sentence, failure)

    def _has_newer_token(self) -> bool:
        """Use the token of this account if it was replaced since this client was made."""
        newer = endpoint(self.endpoint.host, self.endpoint.port)
        if newer.token == self.endpoint.token:
            return False
        self.endpoint = newer
        self._connection.close()
        self._connection = ControlConnection(newer, timeout=self._connect_timeout)
        return True

    def _fetch(self, body: bytes, timeout: float | None) -> tuple[int, str, bytes]:
        """Return status, media type and content of an answer."""
        connection = self._connection
        headers = {
            **self.endpoint.headers(),
            "User-Agent": paths.user_agent("dora", __version__, VERSION),
            "Content-Type": paths.JSON_TYPE,
        }
        self.connect()
        try:
            connection.sock.settimeout(timeout)
            connection.request("POST", paths.REQUEST, body, headers)
            with connection.getresponse() as answer:
                kind = (answer.getheader("Content-Type") or "").partition(";")[0]
                self._report(answer.getheader(paths.SUCCESSOR))
                return answer.status, kind, answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # a late answer would be read as that of the next request
            if timeout is not None and isinstance(error, TimeoutError):
                raise unanswered(self.endpoint, timeout) from error
            raise lost(self.endpoint) from error

    def _report(self, successor: str | None) -> None:
        """Warn once that another coordinator has replaced this one."""
        if successor is not None and self.successor is None:
            self.successor = successor
            host = split_address(successor)[0]
            output.warn(
                f"the coordinator at {self.endpoint} was replaced by the one at {successor}, and "
                f"shows what it stored before: use --coordinator-addr {host}"
            )

    def connect(self) -> None:
        """Connect unless connected; raises CoordinatorUnavailable, Untrusted."""
        if self._connection.sock is not None:
            if not select.select([self._connection.sock], [], [], 0)[0]:
                return
            self._connection.close()  # the coordinator has closed it, as it was idle for long
        try:
            self._connection.connect()
        except (OSError, UnicodeError) as error:
            raise unreachable(self.endpoint, error) from error
