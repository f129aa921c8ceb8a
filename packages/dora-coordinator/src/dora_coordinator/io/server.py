"""The Starlette application: its routes.

`/health`, `/api/health` and `/api/ca` are open. All other routes need the token: the WebSockets
`/api/control` (clients) and `/api/daemon` (daemons), `/api/artifacts/{build_id}/{node_id}` and
`/api/files` for code, `/metrics`, and the REST API (`rest/routes.py`, `rest/recordings.py`).
"""

from __future__ import annotations

import base64
import logging
import os
import secrets
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from dora_config.access import Endpoint
from dora_config.control_plane import AUTHORITY_PATH
from dora_config.errors import RemoteProtocolError
from dora_config.file_store import FileRefused
from dora_config.machine_identity import challenge_text, key_digest
from dora_config.protocol import control, daemon as messages
from dora_config.protocol.claims import Claim
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet
from dora_config.protocol.envelope import ProgramVersion, UnknownKind, clean_text, version_problem
from dora_coordinator.io.connections import DaemonConnection, Renewal
from dora_coordinator.io.files import (
    EXCEPTION_HANDLERS,
    CodeFiles,
    read_code,
    storage_errors,
)
from dora_coordinator.io.guard import (
    DAEMON_ROUTE,
    HEALTH_ROUTES,
    OF_MACHINE,
    ONE_REQUEST,
    RENEWAL,
    Guard,
    TokenCheck,
    is_local,
)
from dora_coordinator.io.limits import ConnectionLimits, as_ipv4
from dora_coordinator.io.metrics import MetricsRoute
from dora_coordinator.io.rest.errors import http_error
from dora_coordinator.io.rest.recordings import RecordingFiles
from dora_coordinator.io.rest.routes import RestApi
from dora_coordinator.io.service import Service
from dora_coordinator.io.store import StoreError
from dora_coordinator.io.succession import COPY_PATH, SUCCESSION_PATH, CopyError
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.state.identities import Proof

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds within which each frame of a handshake must arrive."""

Handshake = Callable[[DaemonConnection], Awaitable[None]]

logger = logging.getLogger("dora.coordinator")


MAX_CLAIM: Final = 1 << 16
"""Bytes of a claim."""
PIECE: Final = 1 << 20
"""Bytes read from a file at once."""
ARCHIVE_TYPE: Final = "application/x-tar"


class NodeArchive:
    """The files of one `CodeSet`, all of them present when it was loaded."""

    def __init__(self, code: CodeSet, paths: dict[str, Path]) -> None:
        """``paths``: the file with the content of each digest."""
        self._code = code
        self._paths = paths

    @classmethod
    async def load(cls, files: CodeFiles, digest: str, node_id: str) -> NodeArchive:
        """Raises OSError, and FileRefused: 422 if the file ``digest`` is not a `CodeSet`, else as
        `CodeFiles.obtain`.
        """
        await files.obtain([digest])
        try:
            code = await anyio.to_thread.run_sync(read_code, files.store.path(digest))
        except FileRefused as problem:
            text = f'the code of node "{node_id}" {problem}'
            raise FileRefused(problem.status, text) from problem
        paths = {file.sha256: files.store.path(file.sha256) for file in code.files}
        await files.obtain(paths)
        return cls(code, paths)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the archive; holds at most one piece of a file in memory."""
        for file in self._code.files:
            async with await anyio.open_file(self._paths[file.sha256], "rb") as content:
                size = os.fstat(content.wrapped.fileno()).st_size
                yield _entry(file, size).tobuf(tarfile.PAX_FORMAT)
                while piece := await content.read(PIECE):
                    yield piece
            yield bytes(-size % tarfile.BLOCKSIZE)
        for link in self._code.links:
            yield _link(link).tobuf(tarfile.PAX_FORMAT)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _entry(file: CodeFile, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(file.path)
    entry.size = size
    entry.mode = 0o755 if file.executable else 0o644
    return entry


def _link(link: CodeLink) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(link.path)
    entry.type = tarfile.SYMTYPE
    entry.linkname = link.target
    return entry


def verify_proof(public_key: str, signature: str, nonce: str, authority: str) -> str:
    """Return the digest of the key; raises :class:`RemoteProtocolError`."""
    try:
        encoded = base64.b64decode(public_key, validate=True)
        key = serialization.load_der_public_key(encoded)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise RemoteProtocolError("the machine's key is not on an elliptic curve")
        signed = base64.b64decode(signature, validate=True)
        key.verify(signed, challenge_text(nonce, authority), ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise RemoteProtocolError("the machine did not prove that it has its key") from error
    canonical = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return key_digest(canonical)


def create_application(service: Service, code: CodeFiles, *, tokens: TokenCheck | None) -> ASGIApp:
    """Return the application; ``tokens`` None: no authentication."""
    endpoints = _Endpoints(service, code)
    application = Starlette(
        routes=[
            *(Route(path, _health, methods=["GET"]) for path in HEALTH_ROUTES),
            Route(AUTHORITY_PATH, endpoints.certificate, methods=["GET"]),
            Route(SUCCESSION_PATH, endpoints.succession, methods=["GET", "POST"]),
            Route(COPY_PATH, endpoints.copy, methods=["GET"]),
            WebSocketRoute("/api/control", endpoints.control),
            WebSocketRoute(DAEMON_ROUTE, endpoints.daemon),
            Route("/api/artifacts/{build_id}/{node_id}", endpoints.archive, methods=["GET"]),
            *code.routes(),
            *MetricsRoute(service).routes(),
            *RestApi(service).routes(),
            *RecordingFiles(service).routes(),
        ],
        exception_handlers={HTTPException: http_error, **EXCEPTION_HANDLERS},
    )
    settings = service.settings
    limits = ConnectionLimits(
        open_at_once=settings.max_connections,
        untrusted_per_window=settings.new_connections_per_minute,
    )
    return Guard(application, limits, tokens)


async def _health(request: Request) -> Response:
    return PlainTextResponse("ok", headers=ONE_REQUEST)


class _OtherVersion(RemoteProtocolError):
    """The other end has an incompatible version of the protocol."""


class _Endpoints:
    """Handlers of routes that need the service or the code of nodes."""

    def __init__(self, service: Service, files: CodeFiles) -> None:
        self._service = service
        self._files = files

    async def certificate(self, request: Request) -> Response:
        return PlainTextResponse(self._service.authority.pem, headers=ONE_REQUEST)

    async def succession(self, request: Request) -> Response:
        """Return the claim of the coordinator that leads; POST shows that of another one."""
        if request.method == "POST":
            content = bytearray()
            async for piece in request.stream():
                content += piece
                if len(content) > MAX_CLAIM:
                    return PlainTextResponse("not a claim\n", 413)
            try:
                claim = Claim.model_validate_json(content)
            except ValidationError:
                return PlainTextResponse("not a claim\n", 422)
            client = request.client.host if request.client else "?"
            self._service.standbys.consider(claim, f"a client at {client}")
        return JSONResponse(self._service.succession.leading.model_dump(mode="json"))

    async def copy(self, request: Request) -> Response:
        """Return an encrypted copy of the state of a coordinator that leads."""
        if (reason := self._service.succession.refusal) is not None:
            return PlainTextResponse(f"{reason}\n", 409)
        try:
            copy = await self._service.standbys.copy()
        except (CopyError, StoreError) as problem:
            return PlainTextResponse(f"{problem}\n", 409)
        return JSONResponse(copy.model_dump(mode="json"))

    # ------------------------------------------------------------------ WebSockets

    async def control(self, socket: WebSocket) -> None:
        """Serve a client: version check, then requests, each in a task of its own."""
        clients: dict[int, tuple[RequestClient, type[control.ControlRequest]]] = {}
        """Requests that are not answered yet."""
        limit = self._service.settings.streams_per_client

        async def answer(request: control.ControlRequest, client: RequestClient) -> None:
            await self._service.request(request, client)
            del clients[client.number]

        def begin(
            connection: DaemonConnection, asked: control.ClientRequest, tasks: TaskGroup
        ) -> None:
            client, kind = RequestClient(asked.id, connection.send), type(asked.request)
            if asked.id in clients or [one for _, one in clients.values()].count(kind) >= limit:
                client.fail(
                    f"at most {limit} requests of one kind are open over one connection; end one, "
                    "for example another tab of `dora ui` with logs or an output, and try again"
                )
                return
            clients[asked.id] = client, kind
            tasks.start_soon(answer, asked.request, client)

        async def handshake(connection: DaemonConnection) -> None:
            frame = control.CLIENT_CODEC.decode(await _handshake_frame(socket, "hello"))
            if not isinstance(frame, control.Hello):
                raise RemoteProtocolError("expected hello as the first frame")
            self._require_compatible(frame.party)
            limit = self._service.settings.max_message_bytes
            welcome = control.Welcome(party=self._service.party, max_message_bytes=limit)
            connection.send(control.SERVER_CODEC.encode(welcome))

        def on_frame(connection: DaemonConnection, text: str, tasks: TaskGroup) -> None:
            match control.CLIENT_CODEC.decode(text):
                case control.ClientRequest() as asked:
                    begin(connection, asked, tasks)
                case control.Cancel(id=number) if number in clients:
                    clients[number][0].scope.cancel()
                case control.StreamAck(id=number, stream=stream) if number in clients:
                    clients[number][0].acknowledged(stream)
                case control.Cancel() | control.StreamAck():
                    pass  # it was answered meanwhile
                case control.Hello():
                    raise RemoteProtocolError("received hello twice")

        def refuse(problem: RemoteProtocolError) -> str:
            return control.SERVER_CODEC.encode(control.Refused(message=str(problem)))

        await self._serve(socket, handshake, on_frame, refuse)

    def _require_compatible(self, party: ProgramVersion) -> None:
        problem = version_problem(self._service.party, party)
        if problem is not None:
            raise _OtherVersion(problem)

    async def _proof(self, socket: WebSocket, register: messages.Register) -> Proof:
        """Challenge a daemon to prove its identity, and check the proof.

        Raises RemoteProtocolError.
        """
        local = is_local(socket.scope)
        nonce, authority = secrets.token_hex(32), self._service.authority.fingerprint
        await socket.send_text(
            messages.TO_DAEMON.encode(messages.Challenge(nonce=nonce, authority=authority))
        )
        answer = messages.TO_COORDINATOR.decode(await _handshake_frame(socket, "identity_proof"))
        if not isinstance(answer, messages.IdentityProof):
            raise RemoteProtocolError("expected identity_proof as the second frame")
        digest = verify_proof(register.public_key, answer.signature, nonce, authority)
        if answer.claim is not None:
            name = register.machine_id or register.instance
            self._service.standbys.consider(answer.claim, f'daemon "{clean_text(name, limit=100)}"')
        if (reason := self._service.succession.refusal) is not None:
            raise RemoteProtocolError(reason)
        return Proof(digest, local=local)

    async def daemon(self, socket: WebSocket) -> None:
        """Serve a daemon: its registration and identity, then its messages."""

        async def handshake(connection: DaemonConnection) -> None:
            message = messages.TO_COORDINATOR.decode(await _handshake_frame(socket, "register"))
            if not isinstance(message, messages.Register):
                raise RemoteProtocolError("expected register as the first frame")
            self._require_compatible(message.party)
            proof = await self._proof(socket, message)
            self._service.daemons.on_register(connection, message, proof)

        def on_frame(connection: DaemonConnection, text: str, tasks: TaskGroup) -> None:
            self._service.daemons.on_message(connection, messages.TO_COORDINATOR.decode(text))

        def refuse(problem: RemoteProtocolError) -> str:
            refusal = messages.RegistrationRefused(
                message=str(problem),
                permanent=isinstance(problem, _OtherVersion),
                claim=self._service.succession.record.successor,
            )
            return messages.TO_DAEMON.encode(refusal)

        await self._serve(socket, handshake, on_frame, refuse)

    async def _serve(
        self,
        socket: WebSocket,
        handshake: Handshake,
        on_frame: Callable[[DaemonConnection, str, TaskGroup], None],
        refuse: Callable[[RemoteProtocolError], str],
    ) -> None:
        """Read frames until either side ends; an invalid frame ends the connection."""
        await socket.accept()
        client = socket.client
        address = str(Endpoint(as_ipv4(client.host), client.port)) if client else "?"
        renewal = socket.scope.get(RENEWAL, Renewal.LATER)
        connection = self._service.daemons.connect(address, renewal)
        connection.of_machine = socket.scope.get(OF_MACHINE, False)
        try:
            async with anyio.create_task_group() as tasks:

                async def write() -> None:
                    try:
                        await connection.write(socket.send_text)
                        await socket.close()
                    except (WebSocketDisconnect, RuntimeError, OSError):
                        pass  # the other end closed the connection meanwhile
                    tasks.cancel_scope.cancel()

                tasks.start_soon(write)
                try:
                    await handshake(connection)
                    while True:
                        text = await _next_frame(socket)
                        try:
                            on_frame(connection, text, tasks)
                        except UnknownKind as unknown:  # sent by a newer version
                            logger.info("%s: ignored: %s", address, clean_text(str(unknown)))
                except RemoteProtocolError as problem:
                    logger.warning("%s: %s", address, clean_text(str(problem)))
                    connection.send(refuse(problem))
                    connection.hang_up()
                except WebSocketDisconnect:
                    tasks.cancel_scope.cancel()
        finally:
            self._service.daemons.disconnect(connection)

    # ----------------------------------------------------------------------- code

    async def archive(self, request: Request) -> Response:
        """Return the code that was sent here for a node."""
        build_id, node_id = request.path_params["build_id"], request.path_params["node_id"]
        digest = self._service.code_digest(build_id, node_id)
        with storage_errors(self._files.store.root):
            archive = await NodeArchive.load(self._files, digest, node_id)
        name = quote(f"{node_id}.tar")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        # the server discards the body of an answer to HEAD: do not read the files for it
        body: AsyncIterator[bytes] | Iterator[bytes]
        body = iter(()) if request.method == "HEAD" else archive.stream()
        return StreamingResponse(body, media_type=ARCHIVE_TYPE, headers=headers)


async def _handshake_frame(socket: WebSocket, kind: str) -> str:
    """Return the frame in which a message of ``kind`` is expected; raises as `_next_frame`."""
    with anyio.move_on_after(HANDSHAKE_TIMEOUT):
        return await _next_frame(socket)
    raise RemoteProtocolError(f"no {kind} within {HANDSHAKE_TIMEOUT:g} s")


async def _next_frame(socket: WebSocket) -> str:
    """Return the next frame.

    Raises WebSocketDisconnect at the end of the connection, RemoteProtocolError for a binary frame.
    """
    try:
        return await socket.receive_text()
    except KeyError as binary:
        raise RemoteProtocolError("expected text frames") from binary
    except RuntimeError as closed:  # the writer noticed the end first
        raise WebSocketDisconnect(1006) from closed
