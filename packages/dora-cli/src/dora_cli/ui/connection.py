"""The connection to a coordinator, opened again whenever it was lost; or to one in this process."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

import anyio

from dora_cli.coordinator.async_client import AsyncClient, ReplyStream, connected
from dora_cli.coordinator.errors import CoordinatorUnreachable, RequestFailed
from dora_config import DoraError
from dora_config.access import Endpoint
from dora_config.protocol.control import ControlAnswer, ControlRequest
from dora_config.protocol.recordings import CallRecorders

FIRST_PAUSE = 0.25
MAX_PAUSE = 2.0
"""Seconds between two attempts."""

T = TypeVar("T", bound=ControlAnswer)

logger = logging.getLogger("dora.ui")


class CoordinatorConnection:
    """Sends requests while connected; `run` connects."""

    is_local = False
    """Whether it shows runs of this computer only; they cannot be started or recorded."""

    def __init__(self, name: str, endpoint: Callable[[], Endpoint]) -> None:
        """``endpoint`` returns address and token, which may have been rotated meanwhile."""
        self.name = name
        """What the page shows as its source."""
        self.endpoint = endpoint
        self.problem: str | None = None
        """Why it is disconnected; None while connected."""
        self._client: AsyncClient | None = None
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Keep connected until cancelled."""
        pause = FIRST_PAUSE
        while True:
            try:
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
        """Wait until requests can be sent."""
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


async def call(coordinator: CoordinatorConnection, request: ControlRequest, expected: type[T]) -> T:
    """Return an answer of the expected kind; raises as `CoordinatorConnection.request`."""
    answer = await coordinator.request(request)
    if not isinstance(answer, expected):
        raise RequestFailed(f"unexpected answer {answer.kind!r} of {coordinator.name}", "failed")
    return answer


NEEDS_COORDINATOR = (
    "this needs a coordinator: use `dora up`, and `dora start` in place of `dora run`"
)


class LocalRuns(CoordinatorConnection):
    """Runs of `dora run` on this computer, adopted by a coordinator in this process."""

    is_local = True

    def __init__(self, dataflow: str | None) -> None:
        """``dataflow``: only this run."""
        super().__init__(f"{socket.gethostname()}, without a coordinator", self._reached)
        self._dataflow = dataflow
        self._endpoint: Endpoint | None = None

    def _reached(self) -> Endpoint:
        if self._endpoint is None:
            raise CoordinatorUnreachable("the runs on this computer are being looked for")
        return self._endpoint

    async def run(self) -> None:
        from dora_cli.coordinator.local_runs import adopting
        from dora_daemon.agent.local_runs import local_runs

        async with adopting(partial(local_runs, self._dataflow)) as self._endpoint:
            await super().run()

    async def request(self, request: ControlRequest) -> ControlAnswer:
        if isinstance(request, CallRecorders):
            raise RequestFailed(NEEDS_COORDINATOR, "failed")
        return await super().request(request)
