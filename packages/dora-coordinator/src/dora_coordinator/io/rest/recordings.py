"""Downloads of recorded files: what a machine uploads is passed on, and never stored here.

For a GET, the machine is requested to PUT the same bytes to a path that is valid once. At most one
piece of the file waits between the two, and each ends when the other does.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import AsyncIterator
from functools import partial
from typing import Final
from urllib.parse import quote, unquote

import anyio
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dora_config.errors import DoraError, first_error
from dora_config.frozen import first_problem
from dora_config.protocol import recordings
from dora_config.protocol.control import Failure
from dora_config.protocol.rest import paths
from dora_config.protocol.rest.errors import OperationFailed
from dora_coordinator.io.guard import ONE_REQUEST
from dora_coordinator.io.rest.errors import json_error, operation_error
from dora_coordinator.io.rest.routes import EncodedRoute, while_connected
from dora_coordinator.io.service import Service

BEGIN_SECONDS: Final = 15.0
"""Seconds from the answer of a machine to its upload."""
STALL_SECONDS: Final = 30.0
"""Seconds without progress of either end after which a transfer ends."""
_RANGE: Final = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")
_MCAP: Final = "application/octet-stream"

logger = logging.getLogger("dora.coordinator")


class _Interrupted(DoraError):
    """A machine has not sent all bytes; the connection of the reader must be closed."""


class _Transfer:
    """Pieces on the way from the PUT of a machine to the GET of a client."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.complete = False
        self._put, self._get = anyio.create_memory_object_stream[bytes](0)

    async def receive(self, request: Request) -> None:
        """Pass on the body of the PUT.

        Raises BrokenResourceError at the end of the reader, ClientDisconnect and TimeoutError.
        """
        self.begun.set()
        pieces = aiter(request.stream())
        with self._put:
            while True:
                with anyio.fail_after(STALL_SECONDS):
                    piece = await anext(pieces, None)
                    if piece is None:
                        break
                    await self._put.send(piece)
            self.complete = True

    async def pieces(self) -> AsyncIterator[bytes]:
        async for piece in self._get:
            yield piece
        if not self.complete:
            raise _Interrupted("the machine has not sent all of it")

    def close(self) -> None:
        """End the reader, and the upload at its next piece."""
        self._get.close()
        if not self.begun.is_set():
            self._put.close()


class _Download(StreamingResponse):
    def __init__(
        self, transfer: _Transfer, status: int, headers: dict[str, str], label: str
    ) -> None:
        super().__init__(transfer.pieces(), status, headers, _MCAP)
        self._transfer = transfer
        self._label = label

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except* (_Interrupted, ClientDisconnect, OSError) as ended:
            logger.info("the download of %s has ended early: %s", self._label, first_error(ended))
        finally:
            self._transfer.close()


class RecordingFiles:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._transfers: dict[str, _Transfer] = {}
        """Transfers that wait for their upload, by its path."""

    def routes(self) -> list[Route]:
        file = f"{paths.RECORDINGS}/{{recording}}/{{daemon}}/{{file}}"
        return [
            EncodedRoute(file, self._download, methods=["GET"]),
            Route(f"{paths.UPLOADS_PATH}/{{upload}}", self._upload, methods=["PUT"]),
        ]

    async def _upload(self, request: Request) -> Response:
        transfer = self._transfers.pop(request.url.path, None)
        if transfer is None:
            return json_error(404, "not_found", "the upload is not expected", headers=ONE_REQUEST)
        try:
            await transfer.receive(request)
        except (anyio.BrokenResourceError, ClientDisconnect, TimeoutError):
            return json_error(409, "conflict", "the reader has ended", headers=ONE_REQUEST)
        return Response(status_code=204)

    async def _download(self, request: Request) -> Response:
        """Return one file of one machine, or a range of it."""
        given = {key: unquote(value) for key, value in request.path_params.items()}
        daemon = given.pop("daemon")
        found = _RANGE.fullmatch(request.headers.get("Range", ""))
        upload = f"{paths.UPLOADS_PATH}/{secrets.token_hex(16)}" if request.method == "GET" else ""
        bounds = {} if found is None else {"first": found[1], "last": found[2]}
        try:
            wanted = recordings.SendRecording.model_validate({**given, **bounds, "upload": upload})
        except ValidationError as problems:
            return operation_error(OperationFailed("invalid", first_problem(problems)))
        ranged = found is not None
        return await while_connected(request, partial(self._passed_on, daemon, wanted, ranged))

    async def _passed_on(
        self, daemon: str, wanted: recordings.SendRecording, ranged: bool
    ) -> Response:
        transfer = _Transfer()
        if wanted.upload:
            self._transfers[wanted.upload] = transfer
        response: Response | None = None
        try:
            size = await self._request(daemon, wanted)
            end = size if wanted.last is None else min(size, wanted.last + 1)
            headers = {"Accept-Ranges": "bytes", "Content-Length": str(end - wanted.first)}
            if ranged and end <= wanted.first:
                return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
            if ranged:
                headers["Content-Range"] = f"bytes {wanted.first}-{end - 1}/{size}"
            name = quote(f"{daemon}_{wanted.file}", safe="")
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
            status = 206 if ranged else 200
            if not wanted.upload or end == 0:
                return Response(status_code=status, headers=headers, media_type=_MCAP)
            with anyio.fail_after(BEGIN_SECONDS):
                await transfer.begun.wait()
            response = _Download(transfer, status, headers, f"{daemon}/{wanted.file}")
            return response
        except OperationFailed as problem:
            return operation_error(problem)
        except TimeoutError:
            text = f'daemon "{daemon}" has not sent the file for {BEGIN_SECONDS:g} s'
            return operation_error(OperationFailed("failed", text))
        finally:
            self._transfers.pop(wanted.upload, None)
            if response is None:
                transfer.close()

    async def _request(self, daemon: str, wanted: recordings.SendRecording) -> int:
        """Request the upload; return the size of the file. Raises OperationFailed."""
        request = recordings.CallRecorders(daemons=(daemon,), request=wanted)
        answer = await self._service.request(request)
        if answer is None or isinstance(answer, Failure):
            text = "the coordinator is ending" if answer is None else answer.message
            raise OperationFailed("failed", text)
        assert isinstance(answer.answer, recordings.RecorderReplies)
        for problem in answer.answer.problems.values():
            raise OperationFailed("failed", problem)
        (one,) = answer.answer.replies
        if not isinstance(one.reply, recordings.RecordingSize):
            raise OperationFailed("failed", f'daemon "{daemon}": unexpected reply')
        return one.reply.size
