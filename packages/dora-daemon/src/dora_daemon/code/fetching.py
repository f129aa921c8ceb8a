"""Downloads of files from the coordinator's store; blocking, resumed after a disconnect."""

from __future__ import annotations

import errno
import http.client
import time
from collections.abc import Callable, Iterable
from typing import BinaryIO, Final

from dora_config.access import Endpoint
from dora_config.control_plane import ControlConnection, Untrusted
from dora_config.errors import DoraError
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code_http import file_path

TIMEOUT: Final = 20.0
"""Seconds without a byte after which a connection is replaced."""
ATTEMPTS: Final = 5
"""Broken connections since the last new byte after which a download fails."""
BUSY_ATTEMPTS: Final = 120
"""The same for attempts at which the coordinator was overloaded, or another process had the file
locked, which may hash a large one."""
MAX_PAUSE: Final = 1.0
"""Seconds between two attempts."""
_CHUNK: Final = 1 << 20
_DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_OVERLOADED: Final = (429, 503)
"""HTTP statuses of a coordinator that answers later."""


class CodeMissing(DoraError):
    """Code of a node is not on this machine and cannot be fetched."""


class _Overloaded(ConnectionError):
    """The coordinator answers later."""


class Fetcher:
    """One connection, replaced when it breaks."""

    def __init__(
        self, endpoint: Endpoint, store: FileStore, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """``cancelled`` returns whether to give up."""
        self._endpoint = endpoint
        self._store = store
        self._cancelled = cancelled
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
        failures = busy = 0
        while True:
            self._raise_if_cancelled()
            before = self._store.arrived(digest)
            try:
                self._resume(digest, before)
                return
            except (OSError, http.client.HTTPException, FileRefused, Untrusted) as problem:
                if self._store.use(digest) is not None:
                    return  # another process has fetched it
                self._raise_final(digest, problem)
                reason: Exception = problem
            self._disconnect()
            if self._store.arrived(digest) > before:
                failures = busy = 0
            elif isinstance(reason, (FileRefused, _Overloaded)):
                busy += 1
            else:
                failures += 1
            if failures >= ATTEMPTS or busy >= BUSY_ATTEMPTS:
                raise self._given_up(reason) from reason
            time.sleep(min(0.2 * (failures + busy + 1), MAX_PAUSE))

    def _given_up(self, reason: Exception) -> CodeMissing:
        if isinstance(reason, FileRefused):
            return CodeMissing(f"{self._store.root}: {reason}")
        return CodeMissing(f"cannot fetch code from the coordinator at {self._endpoint}: {reason}")

    def _raise_final(self, digest: str, problem: Exception) -> None:
        """Raise CodeMissing if another attempt is useless."""
        if isinstance(problem, Untrusted):
            raise CodeMissing(str(problem)) from problem
        if isinstance(problem, FileRefused) and problem.status == 422:
            raise CodeMissing(f"{problem}; start the dataflow again") from problem
        if isinstance(problem, OSError) and problem.errno in _DISK_ERRORS:
            self._store.discard(digest)
            place = problem.filename or self._store.root
            raise CodeMissing(f"{place}: {problem.strerror}") from problem

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
            if answer.status in _OVERLOADED:
                raise _Overloaded(f"HTTP status {answer.status} {answer.reason}")
            if answer.status not in (200, 206, 416):
                text = answer.read(200).decode(errors="replace").strip()
                raise CodeMissing(
                    f"the coordinator at {self._endpoint} refused to send code: HTTP status "
                    f"{answer.status} {text}"
                )
            start = offset if answer.status != 200 else 0
            with self._store.open_partial(digest, start) as file:
                if answer.status != 416:
                    self._copy(answer, file)
                self._store.publish(digest, file)

    def _copy(self, answer: http.client.HTTPResponse, file: BinaryIO) -> None:
        while piece := answer.read(_CHUNK):
            self._raise_if_cancelled()
            file.write(piece)
        if answer.length:  # `read` returns b"" at an early end too
            raise ConnectionError(f"the connection ended {answer.length} bytes before the file")

    def _raise_if_cancelled(self) -> None:
        if self._cancelled():
            raise CodeMissing("the delivery was cancelled")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
