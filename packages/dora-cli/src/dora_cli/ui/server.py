"""The server of the page on this computer."""

from __future__ import annotations

import secrets
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from dora_cli.ui import page
from dora_cli.ui.access import KEY, LOOPBACK, Access
from dora_cli.ui.actions import Actions
from dora_cli.ui.connection import CoordinatorConnection
from dora_cli.ui.feed import Feed
from dora_cli.ui.streams import Viewer

SHUTDOWN_SECONDS = 1
MAX_BODY = 1 << 20
"""Bytes of a request's body."""


class Guard:
    """Checks every request before the application, and adds headers to every response."""

    def __init__(self, application: ASGIApp, access: Access) -> None:
        self._application = application
        self._access = access
        self._headers = page.headers(access.port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._answer(scope)(scope, receive, self._with_headers(scope, send))
            case "websocket":
                refused = self._access.refuse("GET", Headers(scope=scope), websocket=True)
                if refused is None:
                    await self._application(scope, receive, send)
                else:
                    await WebSocket(scope, receive, send).close(1008, refused.message)
            case "lifespan":
                await self._application(scope, receive, send)

    def _answer(self, scope: Scope) -> ASGIApp:
        """Return what answers an HTTP request."""
        headers = Headers(scope=scope)
        if self._enters(Request(scope), headers):
            content = page.enter(self._access.root, self._access.dataflow)
            return HTMLResponse(content, headers={"Set-Cookie": self._access.set_cookie()})
        refused = self._access.refuse(scope["method"], headers)
        if refused is not None:
            return PlainTextResponse(f"{refused.message}\n", refused.status)
        if _is_too_long(headers):
            return PlainTextResponse(
                f"a body needs a Content-Length of at most {MAX_BODY} bytes\n", 413
            )
        return self._application

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        added = {**self._headers, "Cache-Control": page.cache_control(scope["path"])}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(k.lower().encode(), v.encode()) for k, v in added.items()]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        return with_headers

    def _enters(self, request: Request, headers: Headers) -> bool:
        """Return whether a request uses the link with the key."""
        given = request.query_params.get(KEY)
        return (
            given is not None
            and request.method == "GET"
            and request.url.path == "/"
            and self._access.refuse_host(headers) is None
            and self._access.use_key(given)
        )


def _is_too_long(headers: Headers) -> bool:
    """Return whether a body is too long, or of unknown length, which no browser sends."""
    if "transfer-encoding" in headers:
        return True
    length = headers.get("content-length", "0")
    return not length.isdecimal() or int(length) > MAX_BODY


def application(access: Access, coordinator: CoordinatorConnection) -> ASGIApp:
    """Return the application for the page."""
    feed = Feed(coordinator, read_only=access.read_only)
    actions = Actions(coordinator)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(coordinator.run)
            tasks.start_soon(feed.run)
            yield
            tasks.cancel_scope.cancel()

    async def index(_: Request) -> Response:
        return FileResponse(page.INDEX)

    async def live(connection: WebSocket) -> None:
        await Viewer(connection, feed, coordinator).run()

    routes: list[BaseRoute] = [
        Route("/", index),
        WebSocketRoute("/live", live),
        *actions.routes(),
        Mount("/static", StaticFiles(directory=page.STATIC)),
    ]
    below = Mount(access.root.rstrip("/"), routes=routes)
    return Guard(Starlette(routes=[below], lifespan=lifespan), access)


def listen(port: int) -> socket.socket:
    """Return a socket on this computer only; port 0: a free one. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()  # connections wait until the server runs
    except OSError:
        listener.close()
        raise
    return listener


def new_access(port: int, *, read_only: bool, dataflow: str | None = None) -> Access:
    """Return an access with new secrets; ``dataflow`` is shown first."""
    return Access(
        port=port,
        session=secrets.token_urlsafe(32),
        key=secrets.token_urlsafe(32),
        folder=secrets.token_urlsafe(12),
        read_only=read_only,
        dataflow=dataflow,
    )


def serve(
    listener: socket.socket,
    access: Access,
    coordinator: CoordinatorConnection,
    *,
    until_input_ends: bool = False,
) -> None:
    """Serve the page until SIGINT or SIGTERM, or until standard input ends."""
    config = uvicorn.Config(
        application(access, coordinator),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ws="websockets-sansio",
        ws_max_size=64 * 1024,
        ws_per_message_deflate=False,  # costs more than it saves on one computer
    )
    server = uvicorn.Server(config)

    def end_with_input() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    if until_input_ends:
        threading.Thread(target=end_with_input, daemon=True).start()
    server.run(sockets=[listener])
