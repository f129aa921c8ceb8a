"""Requests of the page that the coordinator answers itself, with the token of this account."""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dora_cli.coordinator.errors import unreachable
from dora_config.access import Endpoint
from dora_config.control_plane import CONNECT_TIMEOUT, ControlConnection
from dora_config.errors import first_error

PIECE: Final = 256 * 1024
_SENT: Final = ("content-type", "range")
_RETURNED: Final = ("content-type", "content-length", "content-range", "content-disposition")

logger = logging.getLogger("dora.ui")


class Forwarded(StreamingResponse):
    """The answer, as it arrives; the browser sees a cut connection if it does not end."""

    def __init__(
        self, connection: ControlConnection, answer: http.client.HTTPResponse, path: str
    ) -> None:
        headers = {key: value for key in _RETURNED if (value := answer.headers.get(key))}
        super().__init__(self._pieces(), answer.status, headers)
        self._connection = connection
        self._answer = answer
        self._path = path

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await anyio.to_thread.run_sync(
            self._answer.read, PIECE, abandon_on_cancel=True
        ):
            yield piece
        if self._answer.length:
            raise ConnectionError(f"{self._answer.length} bytes are missing")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except* (OSError, http.client.HTTPException) as failed:
            logger.warning("%s has ended early: %s", self._path, first_error(failed))
        finally:
            _abort(self._connection)


async def forward(endpoint: Endpoint, request: Request) -> Forwarded:
    """Send a request to the same path of the coordinator. Raises CoordinatorUnreachable."""
    path = request.scope["raw_path"].decode("ascii").removeprefix(request.scope["root_path"])
    headers = {key: value for key in _SENT if (value := request.headers.get(key))}
    body = await request.body() or None
    connection = ControlConnection(endpoint, timeout=CONNECT_TIMEOUT)

    def answered() -> http.client.HTTPResponse:
        connection.connect()
        connection.sock.settimeout(None)  # a stop takes as long as its nodes
        connection.request(request.method, path, body, {**endpoint.headers(), **headers})
        return connection.getresponse()

    try:
        answer = await anyio.to_thread.run_sync(answered, abandon_on_cancel=True)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise unreachable(endpoint, error) from error
    except BaseException:
        _abort(connection)
        raise
    return Forwarded(connection, answer, path)


def _abort(connection: ControlConnection) -> None:
    """Close a connection for which a thread may wait."""
    if connection.sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
    connection.close()
