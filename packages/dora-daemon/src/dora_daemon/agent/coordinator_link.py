"""Connection to the coordinator, which is opened again after each loss."""

from __future__ import annotations

import json
import logging
import random
import socket
import ssl
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from dora_config.access import Endpoint
from dora_config.control_plane import Untrusted, explain, websocket_options
from dora_config.errors import DoraError, RemoteProtocolError
from dora_config.machine_identity import challenge_text
from dora_config.protocol import daemon as messages
from dora_config.protocol.envelope import UnknownKind, clean_text
from dora_config.retry import Retry, RetryPolicy
from dora_daemon.agent.coordinator_access import CoordinatorAccess

CONNECT_TIMEOUT = 5.0
"""Seconds for the TCP connection; short, because there may be other addresses to try."""
OPEN_TIMEOUT = 20.0
"""Seconds for TLS and the upgrade; long, because a restarted coordinator serves a whole fleet."""
REGISTRATION_TIMEOUT = 30.0
"""Seconds for the coordinator to answer a registration."""
QUEUE = 4096
"""Messages that may wait for the socket; the connection is closed when more would wait."""
HEARTBEAT_PAUSE = 0.05
"""Seconds at least between two heartbeats."""
MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of a message of the coordinator."""

logger = logging.getLogger("dora.daemon")


RECONNECT = RetryPolicy(first=0.5, longest=5.0)
"""Daemons reconnect to a restarted coordinator within about the longest delay."""
JITTER = 0.25
"""Share by which a delay is longer or shorter, so that daemons do not all reconnect at once."""


def spread(delay: float, random: float) -> float:
    """Return a delay that is longer or shorter; ``random``: 0 up to 1."""
    return delay * (1 + JITTER * (2 * random - 1))


class RefusedForGood(DoraError):
    """The coordinator refuses this daemon permanently."""


class _Lost(Exception):
    """The connection ended; ``str()`` is the reason."""


class CoordinatorLink:
    """Connection to the coordinator; ``register`` is called for each attempt to connect."""

    def __init__(
        self,
        *,
        access: CoordinatorAccess,
        register: Callable[[], messages.Register],
        sign: Callable[[bytes], str],
        heartbeat: Callable[[], messages.Heartbeat],
        received: Callable[[messages.CoordinatorMessage], None],
        lost: Callable[[], None],
    ) -> None:
        self._access = access
        self._endpoint: Endpoint | None = None
        self._register = register
        self._sign = sign
        self._heartbeat = heartbeat
        self._received = received
        self._lost = lost
        self._queue: MemoryObjectSendStream[messages.DaemonMessage] | None = None
        self._changed = anyio.Event()
        self._registered = False
        self._finishing = False
        self._logged = ""

    def endpoint(self) -> Endpoint:
        """Return the address of the present connection, or of the last attempt."""
        return self._endpoint or self._access.endpoint()

    def send(self, message: messages.DaemonMessage) -> None:
        """Queue a message; dropped without a connection, because registering reports everything."""
        if self._queue is None:
            return
        try:
            self._queue.send_nowait(message)
        except anyio.WouldBlock:
            self._queue.close()  # ends the writer, and with it the connection
            self._queue = None
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._queue = None

    def send_heartbeat_soon(self) -> None:
        """Send the next heartbeat soon, because its content has changed."""
        self._changed.set()

    def finish(self) -> None:
        """Let :meth:`run` return once the queued messages have been sent."""
        self._finishing = True
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    async def run(self) -> None:
        """Reconnect until :meth:`finish`; raises :class:`RefusedForGood`."""
        retry = Retry()
        while not self._finishing:
            self._registered = False
            try:
                await self._session()
            except _Lost as problem:
                self._log_change(str(problem))
            if self._registered:
                self._lost()
                self._access.lost()
                retry.reset()
            elif not self._access.failed():
                continue
            if not self._finishing:
                delay = retry.failed(RECONNECT, anyio.current_time())
                await anyio.sleep(spread(delay, random.random()))

    async def _session(self) -> None:
        """Run one connection until it ends; raises :class:`_Lost`."""
        try:
            endpoint = self._endpoint = self._access.endpoint()
        except DoraError as error:  # the token file has become unreadable
            raise _Lost(str(error)) from error
        try:
            sock, options = await anyio.to_thread.run_sync(_open, endpoint, abandon_on_cancel=True)
            async with connect(
                **options,
                sock=sock,
                max_size=MAX_MESSAGE,
                open_timeout=OPEN_TIMEOUT,
                ping_interval=None,  # heartbeats replace it
                close_timeout=1,
            ) as socket:
                send, outgoing = anyio.create_memory_object_stream[messages.DaemonMessage](QUEUE)
                with send, outgoing:
                    # Set before the registration is created, so that no change is missed.
                    self._queue = send
                    await self._exchange(socket, endpoint, outgoing)
        except (OSError, WebSocketException, RemoteProtocolError, Untrusted) as error:
            raise _Lost(_explain(endpoint, error)) from error
        finally:
            self._queue = None

    async def _exchange(
        self,
        socket: ClientConnection,
        endpoint: Endpoint,
        outgoing: MemoryObjectReceiveStream[messages.DaemonMessage],
    ) -> None:
        await socket.send(messages.TO_COORDINATOR.encode(self._register()))
        with anyio.fail_after(REGISTRATION_TIMEOUT):
            answer = messages.TO_DAEMON.decode(await socket.recv())
            authority = ""
            if isinstance(answer, messages.Challenge):
                authority = answer.authority
                await socket.send(messages.TO_COORDINATOR.encode(self._proof(answer, endpoint)))
                answer = messages.TO_DAEMON.decode(await socket.recv())
        if isinstance(answer, messages.RegistrationRefused):
            sentence = clean_text(answer.message)
            if answer.claim is not None:
                self._access.learn(answer.claim, authority)
            raise RefusedForGood(sentence) if answer.permanent else _Lost(sentence)
        if not isinstance(answer, messages.Registered):
            raise RemoteProtocolError("the coordinator did not answer the registration")
        if (problem := self._access.follow(answer.coordinators, authority)) is not None:
            raise _Lost(
                f"refused to obey the coordinator at {endpoint} (epoch "
                f"{answer.coordinators.claim.epoch}): {problem}"
            )
        self._registered = True
        self._log_change(f'connected to the coordinator at {endpoint} as "{answer.daemon}"')
        self._received(answer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, socket, outgoing)
            tasks.start_soon(self._beat, answer.heartbeat_interval)
            reason = await self._read(socket, answer.silence_limit, authority)
            tasks.cancel_scope.cancel()
        if not self._finishing:
            raise _Lost(f"the connection to the coordinator at {endpoint} was lost: {reason}")

    def _proof(self, challenge: messages.Challenge, endpoint: Endpoint) -> messages.IdentityProof:
        """Prove the identity of this machine, to the coordinator of the token only."""
        if endpoint.authority is not None and endpoint.authority.hex() != challenge.authority:
            raise RemoteProtocolError("the coordinator requests a proof for another cluster")
        text = challenge_text(challenge.nonce, challenge.authority)
        claim = self._access.known(challenge.authority).claim
        seen = claim if claim.epoch else None
        return messages.IdentityProof(signature=self._sign(text), claim=seen)

    async def _write(
        self, socket: ClientConnection, outgoing: MemoryObjectReceiveStream[messages.DaemonMessage]
    ) -> None:
        try:
            async for message in outgoing:
                await socket.send(messages.TO_COORDINATOR.encode(message))
            await socket.close()
        except ConnectionClosed:
            pass  # _read reports it

    async def _beat(self, interval: float) -> None:
        while True:
            self.send(self._heartbeat())
            self._changed = anyio.Event()
            with anyio.move_on_after(interval):
                # limits the rate; a change after a long pause is sent at once
                await anyio.sleep(HEARTBEAT_PAUSE)
                await self._changed.wait()

    async def _read(self, socket: ClientConnection, silence_limit: float, authority: str) -> str:
        """Pass on messages until the connection ends; return the reason."""
        try:
            while True:
                with anyio.fail_after(silence_limit):
                    text = await socket.recv()
                try:
                    message = messages.TO_DAEMON.decode(text)
                except UnknownKind as unknown:
                    logger.info("ignored: %s", unknown)  # the coordinator is newer
                    if (call := json.loads(text).get("call")) is not None:
                        reason = f"{unknown}; upgrade dora on this machine"
                        self.send(messages.DaemonAnswered(call=str(call), problem=reason))
                    continue
                if isinstance(message, messages.RegistrationRefused):
                    return clean_text(message.message)
                if isinstance(message, messages.Coordinators):
                    if (problem := self._access.follow(message, authority)) is not None:
                        return problem
                elif not isinstance(message, messages.Registered):
                    self._received(message)
        except TimeoutError:
            return f"silent for {silence_limit:g} s"
        except RemoteProtocolError as error:
            return str(error)
        except ConnectionClosed as error:
            return "it closed the connection" if error.rcvd else "it was interrupted"

    def _log_change(self, sentence: str) -> None:
        """Log a sentence unless it is the previous one, as at each attempt to reconnect."""
        if sentence != self._logged:
            logger.log(logging.INFO if self._registered else logging.WARNING, "%s", sentence)
            self._logged = sentence


def _open(endpoint: Endpoint) -> tuple[socket.socket, dict[str, Any]]:
    """Return a socket that is connected to a coordinator, and the options of `connect` for it.

    Raises Untrusted and OSError.
    """
    address = (endpoint.host, endpoint.port)
    connected = socket.create_connection(address, timeout=CONNECT_TIMEOUT)
    try:
        options = websocket_options(endpoint, "/api/daemon")
    except BaseException:
        connected.close()
        raise
    connected.setblocking(False)
    return connected, options


def _explain(endpoint: Endpoint, error: Exception) -> str:
    untrusted = explain(endpoint, error) if isinstance(error, ssl.SSLError) else error
    if isinstance(untrusted, Untrusted):
        return str(untrusted)
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 426):
            shown = (
                "has another token than this daemon"
                if endpoint.token and status == 401
                else "requires a token, and this daemon has none"
            )
            return (
                f"the coordinator at {endpoint} {shown}; run `dora cluster up` (or `install`) with "
                "the cluster file again, or copy the token file of the coordinator's account "
                "(~/.config/dora/token, mode 0600) to this one, or set DORA_AUTH_TOKEN"
            )
        return f"the coordinator at {endpoint} refuses connections for now (HTTP status {status})"
    if isinstance(error, TimeoutError):
        return f"the coordinator at {endpoint} does not answer"
    return f"no connection to the coordinator at {endpoint}: {error}"
