"""HTTP routes `/api/files`: code that clients send and daemons fetch, by its SHA-256.

POST /api/files with a JSON list of SHA-256 returns those that are missing. PUT /api/files/SHA256
uploads a file of Content-Length bytes, which must fit; X-Dora-Offset resumes an interrupted upload
(HEAD returns that offset). GET downloads a file and supports ranges; a file that is missing here,
as on a standby that has taken over, is uploaded by a machine that has it first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dora_config.disk_space import DiskFull, free_space, require_room
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import (
    FILES_PATH,
    FREE_HEADER,
    OFFSET_HEADER,
    PLACE_HEADER,
    file_path,
)

MAX_LIST: Final = 8 * 1024 * 1024
"""Largest list of digests in bytes."""
MAX_DIGITS: Final = 18
"""Of a number of bytes in a header."""
FETCH_SECONDS: Final = 10.0
"""After which the request for a file that a machine still uploads is answered with 503."""
MAX_AGE: Final = 90 * 24 * 3600.0
"""Seconds without use after which a file is removed."""

logger = logging.getLogger("dora.coordinator")


class CodeFiles:
    """Routes of one store; above ``max_bytes`` in all the least recently used file is removed."""

    def __init__(
        self, store: FileStore, *, max_bytes: int, fetch: Callable[[str], Awaitable[None]]
    ) -> None:
        """``fetch`` makes a machine upload a file; raises FileRefused."""
        self.store = store
        self._fetch = fetch
        self._fetching = anyio.Lock()
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
            if request.method == "GET":
                await self.obtain([digest])
            found = await anyio.to_thread.run_sync(self.store.use, digest)
            if found is None:
                arrived = {OFFSET_HEADER: str(self.store.arrived(digest))}
                return PlainTextResponse("no such file\n", 404, headers=arrived)
        except FileRefused as problem:
            return PlainTextResponse(f"{problem}\n", problem.status)
        except OSError as problem:
            return storage_error(self.store.root, problem)
        return FileResponse(found, media_type="application/octet-stream")

    async def obtain(self, digests: Iterable[str]) -> None:
        """Let machines upload the files that are missing here.

        Raises FileRefused: 404 if none has one, 503 if the upload takes longer.
        """
        missing = await anyio.to_thread.run_sync(self.store.missing, digests)
        try:
            with anyio.fail_after(FETCH_SECONDS):
                for digest in missing:
                    async with self._fetching:  # several machines may need the same file
                        if await anyio.to_thread.run_sync(self.store.use, digest) is None:
                            await self._fetch(digest)
        except TimeoutError as late:
            raise FileRefused(503, "a machine is sending the code; retry later") from late

    async def _receive(self, digest: str, request: Request) -> Response:
        """Store an upload. A refused one is answered at once; the server drops the rest of it."""
        offset = _count(request, OFFSET_HEADER, "0")
        length = _count(request, "Content-Length", "")
        if offset + length > self._max_bytes:
            text = f"larger than {self._max_bytes} bytes (setting max_code_bytes)"
            raise FileRefused(413, text)
        try:
            await anyio.to_thread.run_sync(require_room, [(self.store.root, length)])
        except DiskFull as full:
            raise FileRefused(507, str(full)) from full
        try:
            with await anyio.to_thread.run_sync(self.store.open_partial, digest, offset) as file:
                async for piece in request.stream():
                    await anyio.to_thread.run_sync(file.write, piece)
                await anyio.to_thread.run_sync(self.store.publish, digest, file)
        except ClientDisconnect:
            return _interrupted()  # what arrived is kept
        except OSError:
            with suppress(OSError):  # removed later, by age
                await anyio.to_thread.run_sync(self.store.discard, digest)
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


def _count(request: Request, header: str, default: str) -> int:
    """Return the number of bytes in a header; raises FileRefused."""
    text = request.headers.get(header, default)
    if not (text.isascii() and text.isdecimal()) or len(text) > MAX_DIGITS:
        raise FileRefused(400, f'{header}: "{text[:80]}" is not a number of bytes')
    return int(text)


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
