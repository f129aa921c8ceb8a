"""HTTP routes `/api/files`: code that clients send and daemons fetch, by its SHA-256.

POST /api/files with a JSON list of SHA-256 returns those that are missing. PUT /api/files/SHA256
uploads a file; X-Dora-Offset resumes an interrupted upload (HEAD returns that offset). GET
downloads a file and supports ranges.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
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
MAX_OFFSET_DIGITS: Final = 18
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
        try:
            wanted = await _listed(request)
            found = await anyio.to_thread.run_sync(self.store.missing, wanted)
            room = await anyio.to_thread.run_sync(free_space, self.store.root)
        except ClientDisconnect:
            return _interrupted()
        except FileRefused as problem:
            return PlainTextResponse(f"{problem}\n", problem.status)
        except OSError as problem:
            return storage_error(self.store.root, problem)
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
            return storage_error(self.store.root, problem)
        return FileResponse(found, media_type="application/octet-stream")

    async def _receive(self, digest: str, request: Request) -> Response:
        offset = request.headers.get(OFFSET_HEADER, "0")
        if not offset.isdecimal() or len(offset) > MAX_OFFSET_DIGITS:
            raise FileRefused(400, f'{OFFSET_HEADER}: "{offset[:80]}" is not a valid offset')
        size = int(offset)
        pieces = request.stream()
        try:
            with await anyio.to_thread.run_sync(self.store.open_partial, digest, size) as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > self._max_bytes:
                        raise _TooLarge(self._max_bytes)
                    await anyio.to_thread.run_sync(file.write, piece)
                await anyio.to_thread.run_sync(self.store.publish, digest, file)
        except ClientDisconnect:
            return _interrupted()  # what arrived is kept
        except (OSError, _TooLarge):
            with suppress(OSError):  # removed later, by age
                await anyio.to_thread.run_sync(self.store.discard, digest)
            with suppress(ClientDisconnect):
                async for _ in pieces:
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


async def _listed(request: Request) -> list[str]:
    """Return the list in a body; raises FileRefused and ClientDisconnect."""
    text = b""
    async for piece in request.stream():
        text += piece
        if len(text) > MAX_LIST:
            raise FileRefused(413, f"the list is longer than {MAX_LIST} bytes")
    try:
        wanted = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise FileRefused(400, f"the list is not valid JSON: {problem}") from problem
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise FileRefused(400, "expected a JSON list of SHA-256")
    return wanted


def _interrupted() -> Response:
    """Return the response to a client that has closed its connection."""
    return PlainTextResponse("interrupted\n", 400)


def storage_error(root: Path, problem: OSError) -> Response:
    """Log an error of the disk with the store at ``root``, and return it."""
    reason = f"{problem.filename or root}: {problem.strerror or problem}"
    logger.error("cannot read or write code: %s", reason)
    return PlainTextResponse(f"{reason}\n", 507)
