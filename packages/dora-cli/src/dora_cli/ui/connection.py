"""The connection to a coordinator, opened again whenever it was lost; or to one in this process."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectSendStream
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from dora_cli.coordinator.client import Client
from dora_cli.coordinator.errors import CoordinatorLost, CoordinatorUnreachable, RequestFailed, lost
from dora_cli.coordinator.stream_socket import (
    CONNECT_TIMEOUT,
    HANDSHAKE_ERRORS,
    Frame,
    connection_failure,
    handshake_failed,
    hello,
    request_failed,
    request_frame,
    welcome,
)
from dora_config import DoraError
from dora_config.access import Endpoint
from dora_config.control_plane import websocket_options
from dora_config.errors import RemoteProtocolError
from dora_config.protocol.control import (
    CLIENT_CODEC,
    SERVER_CODEC,
    Answer,
    Cancel,
    ControlAnswer,
    ControlProgress,
    ControlRequest,
    Failure,
    Progress,
    Refused,
    StreamAck,
    Welcome,
)
from dora_config.protocol.envelope import UnknownKind
from dora_config.protocol.recordings import CallRecorders

FIRST_PAUSE = 0.25
MAX_PAUSE = 2.0
"""Seconds between two attempts."""
PING_INTERVAL = 4.0
PING_TIMEOUT = 8.0
"""Seconds; an unplugged coordinator is noticed after both."""
MAX_WAITING = 512
"""Frames of a request that wait for their reader."""

T = TypeVar("T", bound=ControlAnswer)

logger = logging.getLogger("dora.ui")


class ReplyStream:
    """Progress of one request, and then its answer."""

    def __init__(self, client: AsyncClient, number: int, frames: AsyncIterator[Frame]) -> None:
        self._client = client
        self._number = number
        self._frames = frames

    async def __aiter__(self) -> AsyncIterator[ControlProgress | ControlAnswer]:
        """Yield progress and last the answer; raises RequestFailed and CoordinatorLost."""
        async for frame in self._frames:
            match frame:
                case Progress(progress=progress):
                    yield progress
                case Answer(answer=answer):
                    yield answer
                    return
                case Failure():
                    raise request_failed(frame)
        if not self._client.lost.is_set():
            raise CoordinatorLost("the replies of the coordinator were not read in time")
        raise self._client.loss()

    async def acknowledge(self, stream: int) -> None:
        """Request the next update of a stream."""
        await self._client.acknowledge(self._number, stream)


class AsyncClient:
    """One connection; create it with :func:`connected`."""

    def __init__(self, endpoint: Endpoint, socket: ClientConnection, welcome: Welcome) -> None:
        self.endpoint = endpoint
        self.coordinator = welcome.party
        self.lost = anyio.Event()
        """Set when the connection has ended."""
        self._socket = socket
        self._max_message = welcome.max_message_bytes
        self._last_id = 0
        self._replies: dict[int, MemoryObjectSendStream[Frame]] = {}
        self._reason = ""
        self._idle: list[Client] = []
        """Connections for requests without progress."""

    def loss(self) -> CoordinatorLost:
        """Return why the connection has ended."""
        return lost(self.endpoint, self._reason)

    @asynccontextmanager
    async def open(self, request: ControlRequest) -> AsyncIterator[ReplyStream]:
        """Send a request; leaving the block before its answer cancels it."""
        if self.lost.is_set():
            raise self.loss()
        self._last_id += 1
        number = self._last_id
        send, receive = anyio.create_memory_object_stream[Frame](MAX_WAITING)
        self._replies[number] = send
        try:
            await self._write(request_frame(number, request, self._max_message))
            yield ReplyStream(self, number, receive)
        finally:
            self._replies.pop(number, None)
            send.close()
            receive.close()
            if not self.lost.is_set():
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await self._cancel(number)

    async def _cancel(self, number: int) -> None:
        with suppress(ConnectionClosed):  # the reader reports it
            await self._socket.send(CLIENT_CODEC.encode(Cancel(id=number)))

    async def request(self, request: ControlRequest) -> ControlAnswer:
        """Return the answer to one request; raises RequestFailed and CoordinatorUnavailable."""
        client = self._idle.pop() if self._idle else Client(self.endpoint)
        try:
            # a thread of its own until it is answered
            answer = await anyio.to_thread.run_sync(client.answer, request, abandon_on_cancel=True)
        except RequestFailed:
            self._idle.append(client)
            raise
        except BaseException:
            client.abort()
            raise
        self._idle.append(client)
        return answer

    def close(self) -> None:
        for client in self._idle:
            client.close()

    async def acknowledge(self, number: int, stream: int) -> None:
        """Request the next update of a stream."""
        await self._write(CLIENT_CODEC.encode(StreamAck(id=number, stream=stream)))

    async def _write(self, text: str) -> None:
        """Send one frame; raises CoordinatorLost."""
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            raise self.loss() from error

    async def read(self) -> None:
        """Distribute frames until the connection ends."""
        try:
            async for text in self._socket:
                try:
                    frame = SERVER_CODEC.decode(text)
                except UnknownKind:
                    continue  # sent by a newer coordinator
                if isinstance(frame, Refused):
                    self._reason = f": {frame.message}"
                    break
                if isinstance(frame, Progress | Answer | Failure):
                    replies = self._replies.get(frame.id)
                    if replies is not None:
                        self._deliver(frame.id, replies, frame)
        except (ConnectionClosed, RemoteProtocolError) as error:
            self._reason = f": {error}"
        finally:
            self.lost.set()
            for replies in self._replies.values():
                replies.close()

    def _deliver(self, number: int, replies: MemoryObjectSendStream[Frame], frame: Frame) -> None:
        try:
            replies.send_nowait(frame)
        except anyio.WouldBlock:
            # Without this limit, a stalled reader would fill the memory. It reads what waits and
            # then raises, and may request what follows.
            del self._replies[number]
            replies.close()


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[AsyncClient]:
    """Connect for the block; raises CoordinatorUnavailable, Untrusted or AccessDenied."""
    try:
        # It may fetch the certificate of the authority.
        options = await anyio.to_thread.run_sync(websocket_options, endpoint, "/api/control")
        socket = await connect(
            **options,
            max_size=None,
            open_timeout=CONNECT_TIMEOUT,
            close_timeout=1,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
        )
    except DoraError:
        raise
    except (OSError, EOFError, WebSocketException, UnicodeError) as error:
        raise connection_failure(endpoint, error) from error
    async with socket:
        client = AsyncClient(endpoint, socket, await _handshake(endpoint, socket))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.read)
            try:
                yield client
            finally:
                client.close()
            tasks.cancel_scope.cancel()


async def _handshake(endpoint: Endpoint, socket: ClientConnection) -> Welcome:
    try:
        with anyio.fail_after(CONNECT_TIMEOUT):
            await socket.send(hello())
            reply = await socket.recv()
    except HANDSHAKE_ERRORS as error:
        raise handshake_failed(endpoint, error) from error
    return welcome(endpoint, reply)


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
