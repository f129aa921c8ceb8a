"""HTTP routes `/api/files`: code that clients send and daemons fetch, by its SHA-256.

POST /api/files with a JSON list of SHA-256 returns those that are missing. PUT /api/files/SHA256
uploads a file of Content-Length bytes, which must fit; X-Dora-Offset resumes an interrupted upload
(HEAD returns that offset). GET downloads a file and supports ranges; a file that is missing here,
as on a standby that has taken over, is uploaded by a machine that has it first.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
import anyio.to_thread
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dora_config.disk_space import DiskFull, free_space, require_room
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import (
    CODE_QUERY,
    FILES_PATH,
    FREE_HEADER,
    OFFSET_HEADER,
    PLACE_HEADER,
    CodeSet,
    file_path,
)

MAX_LIST: Final = 8 * 1024 * 1024
"""Largest list of digests in bytes."""
MAX_CODE_LIST: Final = 64 << 20
"""Largest list of a node's files in bytes."""
MAX_DIGITS: Final = 18
"""Digits of a number of bytes in a header."""
FETCH_SECONDS: Final = 10.0
"""Seconds until the request for a file that a machine still uploads is answered with 503."""
MAX_AGE: Final = 90 * 24 * 3600.0
"""Seconds without use after which a file is removed."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger("dora.coordinator")


class CodeFiles:
    """Routes of one store; above ``max_bytes`` in all the least recently used file is removed."""

    def __init__(
        self,
        store: FileStore,
        *,
        max_bytes: int,
        fetch: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        """``fetch`` makes machines upload files; raises FileRefused."""
        self.store = store
        self._fetch = fetch
        self._fetching: dict[str, anyio.Event] = {}
        """Files that machines are uploading, and the end of that."""
        self._max_bytes = max_bytes

    def routes(self) -> list[Route]:
        return [
            Route(FILES_PATH, self.missing, methods=["POST"]),
            Route(file_path("{digest}"), self.file, methods=["GET", "HEAD", "PUT"]),
        ]

    async def missing(self, request: Request) -> Response:
        with storage_errors(self.store.root):
            wanted = await _listed(request)
            found = await anyio.to_thread.run_sync(self.store.missing, wanted)
            room = await anyio.to_thread.run_sync(free_space, self.store.root)
        place = {FREE_HEADER: str(room), PLACE_HEADER: quote(str(self.store.root))}
        return JSONResponse(found, headers=place)

    async def file(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        with storage_errors(self.store.root):
            if request.method == "PUT":
                return await self._receive(digest, request)
            if request.method == "GET":
                code = request.query_params.get(CODE_QUERY, "")
                await self.obtain(await self._requested(digest, code))
            found = await anyio.to_thread.run_sync(self.store.use, digest)
            if found is None:
                arrived = {OFFSET_HEADER: str(self.store.arrived(digest))}
                return PlainTextResponse("no such file\n", 404, headers=arrived)
        return FileResponse(found, media_type="application/octet-stream")

    async def obtain(self, digests: Iterable[str]) -> None:
        """Let machines upload the files that are missing here.

        Raises FileRefused: 404 if none has one, 503 if the upload takes longer.
        """
        wanted = tuple(digests)
        try:
            with anyio.fail_after(FETCH_SECONDS):
                while missing := await anyio.to_thread.run_sync(self.store.missing, wanted):
                    mine = [digest for digest in missing if digest not in self._fetching]
                    if mine:
                        await self._fetch_here(mine)
                    else:  # several machines may need the same files
                        await self._fetching[missing[0]].wait()
        except TimeoutError as late:
            raise FileRefused(503, "a machine is sending the code; retry later") from late

    async def _fetch_here(self, digests: Sequence[str]) -> None:
        ended = anyio.Event()
        self._fetching |= dict.fromkeys(digests, ended)
        try:
            # others may have arrived since the caller looked
            if missing := await anyio.to_thread.run_sync(self.store.missing, digests):
                await self._fetch(missing)
        finally:
            for digest in digests:
                del self._fetching[digest]
            ended.set()

    async def _requested(self, digest: str, code: str) -> Collection[str]:
        """Return the files to fetch for a GET: also those that the client needs next."""
        if _DIGEST.fullmatch(code) is None or not self.store.missing([digest]):
            return [digest]
        try:
            listed = await anyio.to_thread.run_sync(read_code, self.store.path(code))
        except (OSError, FileRefused):  # the client may name any file
            return [digest]
        return {digest, *(file.sha256 for file in listed.files)}

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


def read_code(path: Path) -> CodeSet:
    """Read a list of files; raises FileRefused: any file may have the digest that a client sent."""
    size = path.stat().st_size
    if size > MAX_CODE_LIST:
        raise FileRefused(
            422, f"is a list of files of {size} bytes, at most {MAX_CODE_LIST} are read"
        )
    try:
        return CodeSet.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        raise FileRefused(422, "is not a valid list of files; start it again") from problem


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


@contextmanager
def storage_errors(root: Path) -> Iterator[None]:
    """Refuse a request after an error of the disk with the store at ``root``."""
    try:
        yield
    except OSError as problem:
        reason = f"{problem.filename or root}: {problem.strerror or problem}"
        logger.error("cannot read or write code: %s", reason)
        raise FileRefused(507, reason) from problem


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, FileRefused)
    return PlainTextResponse(f"{problem}\n", problem.status)


async def _interrupted(request: Request, problem: Exception) -> Response:
    """Return the response to a client that has closed its connection; what arrived is kept."""
    return PlainTextResponse("interrupted\n", 400)


EXCEPTION_HANDLERS: Final = {FileRefused: _refused, ClientDisconnect: _interrupted}
"""Responses to requests that these exceptions end."""
