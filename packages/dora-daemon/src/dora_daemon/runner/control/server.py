"""The runner's control socket: requests, replies and notices as lines of JSON.

After the handshake a client gets each event of the runner; log lines are read from files.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from dora_config.protocol import runner as protocol
from dora_daemon.runner.control.reading import read_message
from dora_daemon.runner.nodes.socket import Acceptor
from dora_node_api.protocol.control_socket import bind_unix

Answer = Callable[[protocol.RunnerRequest], Awaitable[protocol.RunnerReply]]

ANSWER_SECONDS = 2.0
"""Seconds to answer the requests in progress when the dataflow has ended."""
READ_SECONDS = 1.0
"""Seconds for the clients to read the last messages after that."""
_POLL_SECONDS = 0.01
"""Seconds between two checks of the clients."""


class ControlClient:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.follows = False
        """Whether the client gets events, which it does after its handshake."""
        self.unanswered = 0
        """Requests in progress."""
        self._is_finished = False
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=0)  # `flush` waits for an empty buffer

    def put(self, line: bytes) -> None:
        if not self._writer.is_closing() and not self._is_finished:
            self._writer.write(line)

    async def flush(self, seconds: float) -> None:
        """Wait until everything was sent, for at most ``seconds``."""
        with anyio.move_on_after(seconds), suppress(OSError):
            await self._writer.drain()

    def finish(self) -> None:
        """Close this direction once everything was sent."""
        self._is_finished = True
        with suppress(OSError):
            self._writer.write_eof()


class ControlServer:
    """Serves clients of this user."""

    def __init__(
        self,
        path: Path,
        answer: Answer,
        warn: Callable[[str], None],
        listener: socket.socket | None = None,
    ) -> None:
        """``listener``: a socket that listens at ``path`` already."""
        self.path = path
        self._answer = answer
        self._warn = warn
        self._listener = listener or bind_unix(path)
        self.clients: set[ControlClient] = set()

    def put_event(self, event: protocol.RunnerEvent) -> None:
        """Send an event to every client that follows."""
        followers = [client for client in self.clients if client.follows]
        if not followers:
            return
        line = protocol.encode_line(protocol.Envelope(notice=event))
        for client in followers:
            client.put(line)

    async def serve(self) -> None:
        """Accept clients until cancelled; then close and remove the socket."""
        async with anyio.create_task_group() as tasks:

            def accepted(sock: socket.socket) -> None:
                tasks.start_soon(self._serve, sock)

            with closing(Acceptor(self.path, self._listener, accepted, self._warn)):
                await anyio.sleep_forever()

    async def finish(self) -> None:
        """Wait for a limited time until the clients have read all replies and events.

        They disconnect after that. If this side closed both directions, their next write would
        fail, and they would lose the data that they had not read yet.
        """
        with anyio.move_on_after(ANSWER_SECONDS):
            while any(client.unanswered for client in self.clients):  # noqa: ASYNC110
                await anyio.sleep(_POLL_SECONDS)
        connected = set(self.clients)
        for client in connected:
            client.finish()
        with anyio.move_on_after(READ_SECONDS):
            while connected & self.clients:  # noqa: ASYNC110
                await anyio.sleep(_POLL_SECONDS)

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=protocol.MAX_LINE)
        client = ControlClient(writer)
        self.clients.add(client)
        try:
            async with anyio.create_task_group() as tasks:
                await self._read(client, reader, tasks)
                tasks.cancel_scope.cancel()
        finally:
            self.clients.discard(client)
            writer.transport.abort()

    async def _read(
        self, client: ControlClient, reader: asyncio.StreamReader, tasks: TaskGroup
    ) -> None:
        try:
            while (message := await read_message(reader)) is not None:
                self._handle(client, message, tasks)
        except OSError:
            pass  # the client has ended
        except protocol.RunnerProtocolError as error:
            reply = protocol.Refusal(message=str(error))
            client.put(protocol.encode_line(protocol.Envelope(reply=reply)))
            await client.flush(1.0)

    def _handle(
        self,
        client: ControlClient,
        message: protocol.Envelope | protocol.UnknownMessage,
        tasks: TaskGroup,
    ) -> None:
        if isinstance(message, protocol.UnknownMessage):
            major, minor = protocol.RUNNER_PROTOCOL
            reply = protocol.Refusal(
                message=f"this runner (protocol {major}.{minor}) does not support the request"
                f' "{message.name}" ({message.problem})'
            )
            client.put(protocol.encode_line(protocol.Envelope(id=message.id, reply=reply)))
        elif message.request is not None:
            client.unanswered += 1
            tasks.start_soon(self._reply, client, message.id, message.request)

    async def _reply(
        self, client: ControlClient, number: int | None, request: protocol.RunnerRequest
    ) -> None:
        try:
            reply = await self._answer(request)
            client.put(protocol.encode_line(protocol.Envelope(id=number, reply=reply)))
            client.follows |= isinstance(reply, protocol.HandshakeReply)
        finally:
            client.unanswered -= 1
