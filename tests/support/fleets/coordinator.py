"""A coordinator process on a free port, with HTTP requests."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.dora import RunningDora, running_dora

from dora_config.access import Endpoint, endpoint
from dora_config.control_plane import ControlConnection


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


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def token_file() -> Path:
    return Path(os.environ["XDG_CONFIG_HOME"]) / "dora" / "token"
