"""Downloads of files from the coordinator's store; blocking, resumed after a disconnect."""

from __future__ import annotations

import errno
import http.client
import time
from collections.abc import Iterable
from typing import Final

from dora_config.access import Endpoint
from dora_config.control_plane import ControlConnection, Untrusted
from dora_config.errors import DoraError
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code_http import file_path

TIMEOUT: Final = 20.0
"""Seconds without a byte after which a connection is replaced."""
ATTEMPTS: Final = 5
"""Consecutive connections without a new byte after which a download fails."""
_CHUNK: Final = 1 << 20
_DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class CodeMissing(DoraError):
    """Code of a node is not on this machine and cannot be fetched."""


class Fetcher:
    """One connection, replaced when it breaks."""

    def __init__(self, endpoint: Endpoint, store: FileStore) -> None:
        self._endpoint = endpoint
        self._store = store
        self._connection: ControlConnection | None = None

    def fetch(self, digests: Iterable[str]) -> None:
        """Add missing files to the store. Raises CodeMissing."""
        try:
            for digest in digests:
                if self._store.use(digest) is None:
                    self._fetch(digest)
        finally:
            self._disconnect()

    def _fetch(self, digest: str) -> None:
        failures = 0
        while True:
            before = self._store.arrived(digest)
            try:
                self._resume(digest, before)
                return
            except FileRefused as problem:
                if problem.status != 409:
                    raise CodeMissing(f"{problem}; start the dataflow again") from problem
                reason: Exception = problem
                if self._store.use(digest) is not None:
                    return  # fetched by another process
            except Untrusted as problem:
                raise CodeMissing(str(problem)) from problem
            except (OSError, http.client.HTTPException) as problem:
                if isinstance(problem, OSError) and problem.errno in _DISK_ERRORS:
                    self._store.discard(digest)
                    place = problem.filename or self._store.root
                    raise CodeMissing(f"{place}: {problem.strerror}") from problem
                reason = problem
            self._disconnect()
            failures = 0 if self._store.arrived(digest) > before else failures + 1
            if failures >= ATTEMPTS:
                raise CodeMissing(
                    f"cannot fetch code from the coordinator at {self._endpoint}: {reason}"
                )
            time.sleep(0.2 * (failures + 1))

    def _resume(self, digest: str, offset: int) -> None:
        if self._connection is None:
            self._connection = ControlConnection(self._endpoint, timeout=TIMEOUT)
        headers = self._endpoint.headers()
        if offset:
            headers["Range"] = f"bytes={offset}-"
        self._connection.request("GET", file_path(digest), headers=headers)
        with self._connection.getresponse() as answer:
            if answer.status == 404:
                raise CodeMissing(
                    f"the coordinator at {self._endpoint} does not have the code; start the "
                    "dataflow again where its files are"
                )
            if answer.status not in (200, 206, 416):
                text = answer.read(200).decode(errors="replace").strip()
                raise CodeMissing(
                    f"the coordinator at {self._endpoint} refused to send code: HTTP status "
                    f"{answer.status} {text}"
                )
            start = offset if answer.status != 200 else 0
            with self._store.open_partial(digest, start) as file:
                while answer.status != 416 and (piece := answer.read(_CHUNK)):
                    file.write(piece)
                self._store.publish(digest, file)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
