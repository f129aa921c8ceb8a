"""Files between programs and the coordinator over HTTPS; blocking.

Both continue where they were interrupted, and hold at most one piece of a file in memory.
"""

from __future__ import annotations

import errno
import http.client
import json
import math
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedRandom, BytesIO
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self
from urllib.parse import unquote

from dora_config.access import Endpoint
from dora_config.control_plane import ControlConnection
from dora_config.errors import DoraError
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import (
    FILES_PATH,
    FREE_HEADER,
    OFFSET_HEADER,
    PLACE_HEADER,
    file_path,
)
from dora_config.protocol.rest.paths import JSON_TYPE
from dora_config.retry import Retry, RetryPolicy

TIMEOUT: Final = 20.0
"""Seconds without a byte after which a connection is replaced."""
UPLOAD_TIMEOUT: Final = 30.0
"""Seconds without a byte after which the connection of an upload is replaced."""
BROKEN: Final = RetryPolicy(first=0.2, longest=1.0, limit=4)
"""Policy for broken connections of a download, counted since its last new byte, and for failed
uploads of a file."""
BUSY: Final = RetryPolicy(first=0.2, longest=1.0, limit=119)
"""Policy while the coordinator is overloaded, or another process has locked the file (it may hash a
large one)."""
BLOCK: Final = 64 * 1024
"""Bytes that are sent between two checks for an early answer."""
_PIECE_BYTES: Final = 1 << 20
"""Bytes that are read at a time."""
_DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_OVERLOADED: Final = (429, 503)
"""HTTP statuses after which the request is retried."""


class DownloadFailed(DoraError):
    """A file cannot be fetched; ``status`` is that of an HTTP answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UploadFailed(DoraError):
    """The coordinator did not store all files."""


class _Overloaded(ConnectionError):
    """The coordinator cannot answer now; the request is retried."""


class Incoming(Protocol):
    """File that a download fills."""

    def arrived(self) -> int | None:
        """Return the number of received bytes; None: all, perhaps fetched by another process."""

    def open(self, offset: int) -> BufferedRandom:
        """Open it at ``offset`` for writing; raises FileRefused if another process writes it."""

    def finish(self, file: BufferedRandom) -> None:
        """Check the whole content; raises FileRefused and DownloadFailed."""

    def discard(self) -> None:
        """Discard the received bytes after an error of the disk."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a store, checked by its SHA-256."""

    store: FileStore
    digest: str

    def arrived(self) -> int | None:
        return None if self.store.use(self.digest) is not None else self.store.arrived(self.digest)

    def open(self, offset: int) -> BufferedRandom:
        return self.store.open_partial(self.digest, offset)

    def finish(self, file: BufferedRandom) -> None:
        self.store.publish(self.digest, file)

    def discard(self) -> None:
        self.store.discard(self.digest)


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A file of known size, of which more may have been added at its source."""

    path: Path
    size: int

    def arrived(self) -> int | None:
        try:
            arrived = self.path.stat().st_size
        except FileNotFoundError:
            return 0
        return None if arrived >= self.size else arrived

    def open(self, offset: int) -> BufferedRandom:
        file = self.path.open("r+b" if offset else "w+b")
        file.seek(offset)
        return file

    def finish(self, file: BufferedRandom) -> None:
        if (arrived := file.tell()) < self.size:
            text = f"{self.path.name} ends after {arrived} of {self.size} bytes"
            raise DownloadFailed(text)
        file.truncate(self.size)

    def discard(self) -> None:
        pass  # continued once there is room


class _Connected:
    """One connection, replaced when it breaks; a context manager."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._connection: ControlConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._disconnect()

    def _open(self) -> ControlConnection:
        if self._connection is None:
            self._connection = ControlConnection(self._endpoint, timeout=self._timeout)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Downloads(_Connected):
    """Downloads over one connection."""

    def __init__(self, endpoint: Endpoint, cancelled: Callable[[], bool] = lambda: False) -> None:
        """``cancelled`` returns whether to end downloads."""
        super().__init__(endpoint, TIMEOUT)
        self._cancelled = cancelled

    def download(self, path: str, target: Incoming) -> None:
        """Receive the missing bytes of a file.

        Raises DownloadFailed, Untrusted, OSError of the disk, and FileRefused with status 422.
        """
        broken, busy = Retry(), Retry()
        while (before := target.arrived()) is not None:
            self._raise_if_cancelled(path)
            try:
                self._resume(path, target, before)
                return
            except (OSError, http.client.HTTPException, FileRefused) as problem:
                reason: Exception = problem
            self._disconnect()
            if isinstance(reason, OSError) and reason.errno in _DISK_ERRORS:
                target.discard()
                raise reason
            if isinstance(reason, FileRefused) and reason.status == 422:
                raise reason
            arrived = target.arrived()
            if arrived is None or arrived > before:
                broken, busy, pause = Retry(), Retry(), BROKEN.first
            elif isinstance(reason, (FileRefused, _Overloaded)):
                pause = busy.failed(BUSY, time.monotonic())
            else:
                pause = broken.failed(BROKEN, time.monotonic())
            if math.isinf(pause):
                text = f"cannot fetch {path} from the coordinator at {self._endpoint}: {reason}"
                raise DownloadFailed(text) from reason
            time.sleep(pause)

    def _resume(self, path: str, target: Incoming, offset: int) -> None:
        connection = self._open()
        headers = self._endpoint.headers()
        if offset:
            headers["Range"] = f"bytes={offset}-"
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as answer:
            if answer.status in _OVERLOADED:
                raise _Overloaded(f"HTTP status {answer.status} {answer.reason}")
            if answer.status not in (200, 206, 416):
                raise DownloadFailed(self._refusal(path, answer), answer.status)
            start = offset if answer.status != 200 else 0
            with target.open(start) as file:
                if answer.status != 416:
                    self._copy(answer, file, path)
                target.finish(file)

    def _refusal(self, path: str, answer: http.client.HTTPResponse) -> str:
        text = answer.read(_PIECE_BYTES).decode(errors="replace").strip()
        if (answer.getheader("Content-Type") or "").startswith(JSON_TYPE):
            with suppress(ValueError, LookupError, TypeError):
                return str(json.loads(text)["error"])
        reason = f"HTTP status {answer.status} {text[:200]}"
        return f"the coordinator at {self._endpoint} refused to send {path}: {reason}"

    def _copy(self, answer: http.client.HTTPResponse, file: BinaryIO, path: str) -> None:
        while piece := answer.read(_PIECE_BYTES):
            self._raise_if_cancelled(path)
            file.write(piece)
        if answer.length:  # `read` returns b"" at an early end too
            raise ConnectionError(f"the connection ended {answer.length} bytes before the file")

    def _raise_if_cancelled(self, path: str) -> None:
        if self._cancelled():
            raise DownloadFailed(f"the download of {path} was cancelled")


Source = Path | bytes
"""A local file, or content itself."""


def source_size(source: Source) -> int:
    """Return the size in bytes."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


@dataclass(frozen=True, slots=True)
class Room:
    """Free space of the store."""

    place: str
    free: int


class Uploads(_Connected):
    """Uploads of files by their SHA-256 over one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, UPLOAD_TIMEOUT)

    def missing(self, digests: list[str]) -> tuple[list[str], Room | None]:
        """Return the digests that the store lacks, and its free space if reported.

        Raises UploadFailed.
        """
        text = json.dumps(digests).encode()
        try:
            status, headers, body = self._once("POST", FILES_PATH, text)
        except (OSError, http.client.HTTPException) as problem:
            self._disconnect()
            raise UploadFailed(
                f"cannot send code to the coordinator at {self._endpoint}: {problem}"
            ) from problem
        if status != 200:
            raise UploadFailed(self._refusal(status, body))
        free = headers.get(FREE_HEADER, "")
        place = unquote(headers.get(PLACE_HEADER, ""))
        room = Room(place, int(free)) if free.isdecimal() else None
        return [str(one) for one in json.loads(body)], room

    def send(self, digest: str, source: Source) -> None:
        """Upload one file; raises UploadFailed after several attempts."""
        path = file_path(digest)
        retry = Retry()
        while True:
            try:
                status, found, body = self._once("HEAD", path)
                if status == 200:
                    return
                size = source_size(source)
                offset = min(int(found.get(OFFSET_HEADER, "0")), size)
                with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
                    file.seek(offset)
                    headers = {**self._endpoint.headers(), OFFSET_HEADER: str(offset)}
                    status, body = send_file(self._open(), path, file, size - offset, headers)
            except (OSError, http.client.HTTPException) as problem:
                self._disconnect()
                pause = retry.failed(BROKEN, time.monotonic())
                if math.isinf(pause):
                    raise UploadFailed(
                        f"cannot send code to the coordinator at {self._endpoint}: {problem}"
                    ) from problem
            else:
                if status == 201:
                    return
                self._disconnect()  # the body may not have been sent in full
                if status == 422:
                    raise UploadFailed(f"{source!s} changed while it was sent; start again")
                pause = retry.failed(BROKEN, time.monotonic())
                if status != 409 or math.isinf(pause):
                    raise UploadFailed(self._refusal(status, body))
            time.sleep(pause)

    def _once(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send one request; return status, headers and body of the response."""
        connection = self._open()
        connection.request(method, path, body, self._endpoint.headers())
        with connection.getresponse() as answer:
            return answer.status, answer.headers, answer.read()

    def _refusal(self, status: int, body: bytes) -> str:
        text = body[:300].decode(errors="replace").strip()
        return f"the coordinator at {self._endpoint} refused the code: HTTP status {status} {text}"


def send_file(
    connection: ControlConnection,
    path: str,
    file: BinaryIO,
    length: int,
    headers: Mapping[str, str],
) -> tuple[int, bytes]:
    """PUT ``length`` bytes of an open file; return status and body of the answer.

    An answer that arrives early, which is a refusal, ends the sending. Raises OSError and
    HTTPException.
    """
    connection.request(
        "PUT", path, _blocks(connection, file, length), {**headers, "Content-Length": str(length)}
    )
    with connection.getresponse() as answer:
        return answer.status, answer.read()


def _blocks(connection: ControlConnection, file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0 and (block := file.read(min(BLOCK, length))):
        length -= len(block)
        yield block
        if select.select([connection.sock], [], [], 0)[0]:
            return
