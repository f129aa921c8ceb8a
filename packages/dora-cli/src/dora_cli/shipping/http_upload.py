"""Sends files to the coordinator's store: only what it lacks, resumed after a cut."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote

from dora_cli import output
from dora_cli.shipping.collection import Collected, all_sources
from dora_config.access import Endpoint
from dora_config.disk_space import SPARE, DiskFull
from dora_config.errors import DoraError
from dora_config.yaml.quantities import show_size

TIMEOUT: Final = 30.0
ATTEMPTS: Final = 5
_OFFSET: Final = "X-Dora-Offset"


class UploadFailed(DoraError):
    """The coordinator did not take all files; ``str()`` says why."""


def upload(endpoint: Endpoint, parts: Iterable[Collected]) -> int:
    """Have all files of these nodes in the coordinator's store; bytes that were sent."""
    sources = all_sources(parts)
    connection = _Connection(endpoint)
    try:
        missing, room = connection.missing(sorted(sources))
        sizes = {digest: _size(sources[digest]) for digest in missing}
        total = sum(sizes.values())
        if room is not None and total > room.free - SPARE:
            problem = DiskFull(f"{room.place} on the coordinator's machine", room.free, total)
            raise UploadFailed(f"the coordinator at {endpoint} has no room for the code: {problem}")
        if missing:
            output.remark(f"sending {len(missing)} files, {show_size(total)}, to the coordinator")
        for digest in missing:
            connection.send(digest, sources[digest], sizes[digest])
    finally:
        connection.hang_up()
    return total


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _open(source: Path | bytes) -> BinaryIO:
    return BytesIO(source) if isinstance(source, bytes) else source.open("rb")


@dataclass(frozen=True, slots=True)
class _Room:
    """Free space of the coordinator's store."""

    place: str
    free: int


class _Connection:
    """One connection, made anew when it is cut."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection: http.client.HTTPConnection | None = None

    def missing(self, digests: list[str]) -> tuple[list[str], _Room | None]:
        """What the store lacks, and its room if the coordinator reports it."""
        text = json.dumps(digests).encode()
        try:
            status, headers, body = self._once("POST", "/api/files", text, {})
        except (OSError, http.client.HTTPException) as problem:
            self.hang_up()
            raise UploadFailed(
                f"the coordinator at {self._endpoint} takes no code: {problem}"
            ) from problem
        if status != 200:
            raise UploadFailed(self._refused(status, body))
        free = headers.get("X-Dora-Free", "")
        place = unquote(headers.get("X-Dora-Store", ""))
        room = _Room(place, int(free)) if free.isdecimal() else None
        return [str(one) for one in json.loads(body)], room

    def send(self, digest: str, source: Path | bytes, size: int) -> None:
        path = f"/api/files/{digest}"
        failures = 0
        offset = 0
        while True:
            try:
                status, headers, body = self._once("HEAD", path, None, {})
                if status == 200:
                    return
                offset = min(int(headers.get(_OFFSET, "0")), size)
                with _open(source) as file:
                    file.seek(offset)
                    shown = {_OFFSET: str(offset), "Content-Length": str(size - offset)}
                    status, _, body = self._once("PUT", path, file, shown)
            except (OSError, http.client.HTTPException) as problem:
                failures += 1
                self.hang_up()
                if failures >= ATTEMPTS:
                    raise UploadFailed(
                        f"code cannot be sent to the coordinator at {self._endpoint}: {problem}"
                    ) from problem
            else:
                if status == 201:
                    return
                failures += 1
                if status == 422:
                    raise UploadFailed(f"{source!s}: changed while it was sent; start again")
                if status != 409 or failures >= ATTEMPTS:
                    raise UploadFailed(self._refused(status, body))
            time.sleep(0.2 * failures)

    def _once(
        self, method: str, path: str, body: bytes | BinaryIO | None, headers: dict[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers (whatever their case) and body of the answer to one request."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                self._endpoint.host, self._endpoint.port, timeout=TIMEOUT
            )
        self._connection.request(method, path, body, {**self._endpoint.headers(), **headers})
        with self._connection.getresponse() as answer:
            return answer.status, answer.headers, answer.read()

    def _refused(self, status: int, body: bytes) -> str:
        text = body[:300].decode(errors="replace").strip()
        return f"the coordinator at {self._endpoint} takes no code: HTTP status {status} {text}"

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
