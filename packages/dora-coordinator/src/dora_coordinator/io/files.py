"""HTTP routes `/api/files`: code that clients send and daemons fetch, by its SHA-256.

POST /api/files with a JSON list of SHA-256 returns those that are missing. PUT /api/files/SHA256
uploads a file; X-Dora-Offset resumes an interrupted upload (HEAD returns that offset). GET
downloads a file and supports ranges.
"""

from __future__ import annotations

import json
import logging
from typing import Final
from urllib.parse import quote

import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dora_config.disk_space import free_space
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code_http import (
    FILES_PATH,
    FREE_HEADER,
    OFFSET_HEADER,
    PLACE_HEADER,
    file_path,
)

MAX_LIST: Final = 8 * 1024 * 1024
"""Largest list of digests in bytes."""
MAX_AGE: Final = 90 * 24 * 3600.0
"""Seconds without use after which a file is removed."""

logger = logging.getLogger("dora.coordinator")


class _TooLarge(FileRefused):
    """A file is larger than the store."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(413, f"larger than {max_bytes} bytes (setting max_code_bytes)")


class CodeFiles:
    """Routes of one store; above ``max_bytes`` in all the least recently used file is removed."""

    def __init__(self, store: FileStore, *, max_bytes: int) -> None:
        self.store = store
        self._max_bytes = max_bytes

    def routes(self) -> list[Route]:
        return [
            Route(FILES_PATH, self.missing, methods=["POST"]),
            Route(file_path("{digest}"), self.file, methods=["GET", "HEAD", "PUT"]),
        ]

    async def missing(self, request: Request) -> Response:
        text = b""
        async for piece in request.stream():
            text += piece
            if len(text) > MAX_LIST:
                return PlainTextResponse("the list is too long\n", 413)
        try:
            wanted = json.loads(text)
            if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
                raise ValueError("expected a JSON list of SHA-256")
            found = await anyio.to_thread.run_sync(self.store.missing, wanted)
        except (ValueError, FileRefused) as problem:
            return PlainTextResponse(f"{problem}\n", 400)
        room = await anyio.to_thread.run_sync(free_space, self.store.root)
        place = {FREE_HEADER: str(room), PLACE_HEADER: quote(str(self.store.root))}
        return JSONResponse(found, headers=place)

    async def file(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        try:
            if request.method == "PUT":
                return await self._receive(digest, request)
            found = await anyio.to_thread.run_sync(self.store.use, digest)
            if found is None:
                arrived = {OFFSET_HEADER: str(self.store.arrived(digest))}
                return PlainTextResponse("no such file\n", 404, headers=arrived)
        except FileRefused as problem:
            return PlainTextResponse(f"{problem}\n", problem.status)
        except OSError as problem:
            reason = f"{problem.filename or self.store.root}: {problem.strerror or problem}"
            logger.error("cannot store code: %s", reason)
            return PlainTextResponse(f"{reason}\n", 507)
        return FileResponse(found, media_type="application/octet-stream")

    async def _receive(self, digest: str, request: Request) -> Response:
        offset = request.headers.get(OFFSET_HEADER, "0")
        if not offset.isdecimal():
            raise FileRefused(400, f'{OFFSET_HEADER}: "{offset}" is not a number')
        size = int(offset)
        try:
            with await anyio.to_thread.run_sync(self.store.open_partial, digest, size) as file:
                async for piece in request.stream():
                    size += len(piece)
                    if size > self._max_bytes:
                        raise _TooLarge(self._max_bytes)
                    await anyio.to_thread.run_sync(file.write, piece)
                await anyio.to_thread.run_sync(self.store.publish, digest, file)
        except ClientDisconnect:
            return PlainTextResponse("interrupted\n", 400)  # not read; what arrived is kept
        except (OSError, _TooLarge):
            await anyio.to_thread.run_sync(self.store.discard, digest)
            async for _ in request.stream():
                pass  # clients read the response only after sending everything
            raise
        await anyio.to_thread.run_sync(self._collect)
        return Response(status_code=201)

    def _collect(self) -> None:
        try:
            removed = self.store.collect(max_age=MAX_AGE, max_bytes=self._max_bytes)
        except OSError as problem:  # the upload is stored
            logger.warning("cannot remove unused code from %s: %s", self.store.root, problem)
            return
        if removed:
            logger.info("removed %d unused files of code", removed)
