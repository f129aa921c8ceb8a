"""Connections of the page to a remote coordinator, or to one in this process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnreachable, RequestFailed
from dora_cli.coordinator.stream_socket import StreamSocket
from dora_config.access import Endpoint
from dora_config.protocol.envelope import Message, Request
from dora_config.protocol.recordings import CallRecorders

A = TypeVar("A", bound=Message)

NEEDS_COORDINATOR = (
    "this needs a coordinator: use `dora up`, and `dora start` in place of `dora run`"
)


class ReplyStream:
    """Progress of one request, followed by its answer."""

    def __init__(self, connection: StreamSocket, request: Request[Message]) -> None:
        """Send the request; raises as `StreamSocket.send`."""
        self._socket = connection
        self._answer = request.answer_type()
        self._number = connection.send(request)
        self._thread = anyio.CapacityLimiter(1)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yield progress and last the answer; raises RequestFailed and CoordinatorLost."""
        content: Message | RequestFailed | None = None
        while not isinstance(content, self._answer):
            frame = await anyio.to_thread.run_sync(
                self._socket.next_frame, limiter=self._thread, abandon_on_cancel=True
            )
            assert frame is not None
            _, content = frame
            if isinstance(content, RequestFailed):
                raise content
            yield content

    async def acknowledge(self, stream: int) -> None:
        """Request the next update of a stream."""
        await anyio.to_thread.run_sync(self._socket.acknowledge, self._number, stream)


class CoordinatorConnection:
    """Opens a connection for each request; requests without progress reuse idle connections."""

    is_local = False
    """Whether the page shows runs of this computer only; they cannot be started or recorded."""

    def __init__(self, name: str, endpoint: Callable[[], Endpoint]) -> None:
        """``endpoint`` returns address and token, which may have been rotated meanwhile."""
        self.name = name
        """Name of the source that the page shows."""
        self.endpoint = endpoint
        self._idle: list[CoordinatorClient] = []

    async def run(self) -> None:
        """Keep connections until cancelled."""
        try:
            await anyio.sleep_forever()
        finally:
            for client in self._idle:
                client.close()

    async def _reach(self) -> Endpoint:
        return self.endpoint()

    @asynccontextmanager
    async def open(self, request: Request[Message]) -> AsyncIterator[ReplyStream]:
        """Send a request with progress; leaving the block before its answer cancels it.

        Raises CoordinatorUnavailable, Untrusted, AccessDenied and RequestFailed.
        """
        connection = await anyio.to_thread.run_sync(StreamSocket, await self._reach())
        try:
            yield ReplyStream(connection, request)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(connection.close)

    async def request(self, request: Request[A]) -> A:
        """Return the answer to a request; raises as `open`."""
        endpoint = await self._reach()
        client = self._idle.pop() if self._idle else CoordinatorClient(endpoint)
        try:
            # uses a thread until the answer arrives
            ask = partial(client.request, request)
            answer = await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)
        except RequestFailed:
            self._idle.append(client)
            raise
        except BaseException:
            client.abort()
            raise
        self._idle.append(client)
        return answer


class LocalRuns(CoordinatorConnection):
    """Runs of `dora run` on this computer, adopted by a coordinator in this process."""

    is_local = True

    def __init__(self, dataflow: str | None) -> None:
        """``dataflow``: only this run."""
        super().__init__(f"{socket.gethostname()}, without a coordinator", self._reached)
        self._dataflow = dataflow
        self._endpoint: Endpoint | None = None
        self._started = anyio.Event()

    def _reached(self) -> Endpoint:
        if self._endpoint is None:
            raise CoordinatorUnreachable("the runs on this computer are being looked for")
        return self._endpoint

    async def _reach(self) -> Endpoint:
        await self._started.wait()
        return self._reached()

    async def run(self) -> None:
        from dora_cli.coordinator.local_runs import adopting
        from dora_daemon.agent.local_runs import local_runs

        async with adopting(partial(local_runs, self._dataflow)) as self._endpoint:
            self._started.set()
            await super().run()

    async def request(self, request: Request[A]) -> A:
        if isinstance(request, CallRecorders):
            raise RequestFailed(NEEDS_COORDINATOR, "failed")
        return await super().request(request)
