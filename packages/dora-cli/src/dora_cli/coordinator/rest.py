"""Requests to the coordinator's REST API; imports neither pydantic nor websockets.

Commands with a single request use it, because they start in a fraction of the time.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from dora_cli._version import __version__
from dora_cli.coordinator.errors import (
    CoordinatorLost,
    RequestFailed,
    lost,
    refused,
    unanswered,
    unreachable,
)
from dora_cli.coordinator.keepalive import detect_lost_peer
from dora_config.access import Endpoint
from dora_config.control_plane import ControlConnection
from dora_config.protocol import VERSION
from dora_config.protocol.rest import paths

CONNECT_TIMEOUT: Final = 5.0
"""Seconds after which a coordinator that does not answer counts as unreachable."""
QUERY_TIMEOUT: Final = 30.0
"""Seconds for the answer to a query; a coordinator may be busy with its fleet."""
_REFUSED: Final = (401, 403, 426, 429, 503)
"""Statuses that refuse any request; 503 also while the coordinator ends."""

Json = dict[str, Any]


class RestClient:
    """One connection to the coordinator, opened by the first request; a context manager."""

    def __init__(self, endpoint: Endpoint, *, timeout: float | None = None) -> None:
        """``timeout``: seconds for a connection and for the answer to a query, if not the usual."""
        self._endpoint = endpoint
        connect, query = (CONNECT_TIMEOUT, QUERY_TIMEOUT) if timeout is None else (timeout, timeout)
        self._connection = ControlConnection(endpoint, timeout=connect)
        self._query_timeout = query

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def get(self, path: str) -> Json:
        """Return the result of a query.

        Raises CoordinatorUnavailable, Untrusted, AccessDenied and RequestFailed.
        """
        return self._request("GET", path, None, self._query_timeout)

    def post(self, path: str, arguments: Mapping[str, object] | None = None) -> Json:
        """Return the result of an action, however long it takes; raises as `get`.

        Arguments of None are left out.
        """
        given = {key: value for key, value in (arguments or {}).items() if value is not None}
        return self._request("POST", path, given, None)

    def _request(
        self, method: Literal["GET", "POST"], path: str, body: Json | None, timeout: float | None
    ) -> Json:
        status, kind, content = self._exchange(method, path, body, timeout)
        if kind != paths.JSON_TYPE:
            raise refused(self._endpoint, status, kind, content.decode(errors="replace"))
        try:
            found: Json = json.loads(content)
            if status < 400:
                return found
            sentence, code = str(found["error"]), str(found["code"])
        except (ValueError, KeyError, TypeError) as error:
            raise CoordinatorLost(
                f"unexpected answer of the coordinator at {self._endpoint}: {error!r}"
            ) from error
        if status in _REFUSED:
            raise refused(self._endpoint, status, kind, sentence)
        raise RequestFailed(sentence, code, found.get("ended"))

    def _exchange(
        self, method: str, path: str, body: Json | None, timeout: float | None
    ) -> tuple[int, str, bytes]:
        """Return status, media type and content of an answer."""
        connection = self._connection
        headers = self._endpoint.headers()
        headers["User-Agent"] = paths.user_agent("dora", __version__, VERSION)
        content = None
        if body is not None:
            headers["Content-Type"] = paths.JSON_TYPE
            content = json.dumps(body).encode()
        self._connect()
        try:
            connection.sock.settimeout(timeout)
            connection.request(method, path, content, headers)
            with connection.getresponse() as answer:
                kind = (answer.getheader("Content-Type") or "").partition(";")[0]
                return answer.status, kind, answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # it may still receive this answer
            if timeout is not None and isinstance(error, TimeoutError):
                raise unanswered(self._endpoint, timeout) from error
            raise lost(self._endpoint) from error

    def _connect(self) -> None:
        if self._connection.sock is not None:
            return
        try:
            self._connection.connect()
            assert self._connection.sock is not None
            detect_lost_peer(self._connection.sock)
        except (OSError, UnicodeError) as error:
            raise unreachable(self._endpoint, error) from error
