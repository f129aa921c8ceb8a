"""A coordinator process on a free port, with HTTP requests; the list of its dataflows."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.dora import RunningDora, running_dora
from websockets.sync.client import ClientConnection, connect

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorLost
from dora_config.access import Endpoint, endpoint
from dora_config.control_plane import ControlConnection, websocket_options
from dora_config.protocol.control import DataflowSummary, ListDataflows


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class RunningCoordinator:
    process: RunningDora
    port: int

    @property
    def endpoint(self) -> Endpoint:
        """Its address with the token of this account."""
        return endpoint("127.0.0.1", self.port)

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """Send an HTTP request; by default ``headers`` has the right token."""
        connection = ControlConnection(self.endpoint, timeout=60)
        shown = self.endpoint.headers() if headers is None else headers
        try:
            connection.request(method, path, body, dict(shown))
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, answer.read(), names)
        finally:
            connection.close()

    def open_socket(self, path: str, headers: Mapping[str, str] | None = None) -> ClientConnection:
        """Open a WebSocket, a context manager; by default ``headers`` has the right token."""
        options = websocket_options(self.endpoint, path)
        if headers is not None:
            options["additional_headers"] = headers
        socket: ClientConnection = connect(**options)
        return socket


@contextmanager
def running_coordinator(
    *args: str | Path, port: int = 0, cwd: Path | None = None
) -> Iterator[RunningCoordinator]:
    """Run ``dora coordinator ARGS``; kill it at the end of the block if it still runs."""
    with running_dora("coordinator", "--port", str(port), *args, cwd=cwd) as process:
        process.wait_for("Listening on port ")
        found = re.search(r"Listening on port (\d+)", process.stdout)
        assert found is not None
        yield RunningCoordinator(process, int(found.group(1)))


class DataflowReader:
    """Lists dataflows over one connection, since a TLS handshake costs more than the answer."""

    def __init__(self, endpoint: Callable[[], Endpoint]) -> None:
        self._endpoint = endpoint
        self._client: CoordinatorClient | None = None

    def dataflows(self) -> list[DataflowSummary]:
        """Return all dataflows, over a new connection after a loss; raises DoraError."""
        if self._client is not None:
            try:
                return self._list(self._client)
            except CoordinatorLost:
                self.close()
        self._client = CoordinatorClient(self._endpoint())
        return self._list(self._client)

    def _list(self, client: CoordinatorClient) -> list[DataflowSummary]:
        return list(client.request(ListDataflows()).dataflows)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def token_file() -> Path:
    return Path(os.environ["XDG_CONFIG_HOME"]) / "dora" / "token"
