"""The connection to the coordinator, opened again whenever it was lost."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager

import anyio

from dora_cli.coordinator.async_client import AsyncClient, ReplyStream, connected
from dora_cli.coordinator.errors import CoordinatorUnreachable
from dora_config import DoraError
from dora_config.access import Endpoint, address_text, endpoint
from dora_config.protocol.control import ControlAnswer, ControlRequest

FIRST_PAUSE = 0.25
MAX_PAUSE = 2.0
"""Seconds between two attempts."""

logger = logging.getLogger("dora.ui")


class CoordinatorConnection:
    """Sends requests while connected; `run` connects."""

    is_local = False

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.problem: str | None = None
        """Why it is disconnected; None while connected."""
        self._client: AsyncClient | None = None
        self._changed = anyio.Event()

    @property
    def name(self) -> str:
        return address_text(self._host, self._port)

    def endpoint(self) -> Endpoint:
        return endpoint(self._host, self._port)

    async def run(self) -> None:
        """Keep connected until cancelled."""
        pause = FIRST_PAUSE
        while True:
            try:
                # The token may have been rotated meanwhile.
                async with connected(self.endpoint()) as client:
                    pause = FIRST_PAUSE
                    self._set(client, None)
                    await client.lost.wait()
                    self._set(None, str(client.loss()))
            except DoraError as error:
                self._set(None, str(error))
                pause = min(pause * 2, MAX_PAUSE)
            await anyio.sleep(pause)

    def _set(self, client: AsyncClient | None, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            logger.info("%s", problem)
        self._client, self.problem = client, problem
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_connected(self) -> None:
        while self._client is None:
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait until the connection is lost or opened."""
        await self._changed.wait()

    def open(self, request: ControlRequest) -> AbstractAsyncContextManager[ReplyStream]:
        """Send a request with progress; raises CoordinatorUnreachable without a connection."""
        return self._connected().open(request)

    async def request(self, request: ControlRequest) -> ControlAnswer:
        """Return the answer; raises as `open`, RequestFailed and CoordinatorLost."""
        return await self._connected().request(request)

    def _connected(self) -> AsyncClient:
        if self._client is None:
            raise CoordinatorUnreachable(self.problem or "not connected to the coordinator yet")
        return self._client
