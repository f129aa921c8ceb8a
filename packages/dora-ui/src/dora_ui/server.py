"""The server of the page on this computer, and its access control."""

from __future__ import annotations

import hmac
import secrets
import socket
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.config import Config
from uvicorn.server import Server

from dora_ui import page
from dora_ui.actions import Actions
from dora_ui.connection import CoordinatorConnection
from dora_ui.feed import Feed
from dora_ui.streams import Viewer

SHUTDOWN_SECONDS = 1
"""Seconds for open requests when the server ends."""
MAX_BODY = 1 << 20
"""Most bytes of a request's body."""

LOOPBACK: Final = "127.0.0.1"
KEY: Final = "key"
"""Name of the query parameter with the secret."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """Status and text of a refused request."""

    status: int
    message: str


_NO_SESSION: Final = (
    "this browser has no session: open the link that `dora ui` has printed, or run `dora ui` again "
    "for a new one (a link can be used once)"
)


@dataclass(slots=True)
class Access:
    """Key and session of one server."""

    port: int
    session: str = field(default_factory=partial(secrets.token_urlsafe, 32))
    """Secret in the cookie."""
    key: str | None = field(default_factory=partial(secrets.token_urlsafe, 32))
    """Secret in the link; None after its use."""
    folder: str = field(default_factory=partial(secrets.token_urlsafe, 12))
    """Random first part of all paths. Browsers send the cookie only to these paths, and so not to
    other servers on this computer, because cookies do not depend on the port.
    """
    read_only: bool = False
    dataflow: str | None = None
    """UUID of the dataflow that the link opens."""

    @property
    def cookie_name(self) -> str:
        """Cookies do not depend on the port, so the name contains it."""
        return f"dora_ui_{self.port}"

    @property
    def link(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/?{KEY}={self.key}"

    @property
    def root(self) -> str:
        """Path of the page."""
        return f"/{self.folder}/"

    def set_cookie(self) -> str:
        """Return the header that starts the session."""
        return f"{self.cookie_name}={self.session}; HttpOnly; SameSite=Strict; Path={self.root}"

    def use_key(self, given: str) -> bool:
        """Return whether the key is right and was not used before."""
        if self.key is None or not hmac.compare_digest(self.key.encode(), given.encode()):
            return False
        self.key = None
        return True

    def refuse_host(self, headers: Mapping[str, str]) -> HttpRefusal | None:
        """Return why the name or origin of a request is not accepted."""
        host = headers.get("host", "")
        port = "" if self.port == 80 else f":{self.port}"  # browsers omit the default port
        if host not in (f"{LOOPBACK}{port}", f"localhost{port}"):
            return HttpRefusal(421, f"this server is http://{LOOPBACK}:{self.port}")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return HttpRefusal(403, "requests of other pages are not accepted")
        return None

    def refuse(
        self, method: str, headers: Mapping[str, str], *, websocket: bool = False
    ) -> HttpRefusal | None:
        """Return why a request is not accepted; ``headers`` have lower-case names."""
        refused = self.refuse_host(headers)
        if refused is not None:
            return refused
        if not self._has_session(headers.get("cookie", "")):
            return HttpRefusal(403, _NO_SESSION)
        changes = method not in SAFE_METHODS
        if (websocket or changes) and "origin" not in headers:
            return HttpRefusal(403, "the header Origin is missing")
        if not changes:
            return None
        if self.read_only:
            return HttpRefusal(403, "changes are disabled: `dora ui` runs with --read-only")
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return HttpRefusal(415, "expected Content-Type: application/json")
        return None

    def _has_session(self, cookies: str) -> bool:
        """Return whether a valid cookie is present; other servers' cookies may be malformed."""
        return any(
            hmac.compare_digest(value.encode(), self.session.encode())
            for one in cookies.split(";")
            for name, value in cookie_parser(one).items()
            if name == self.cookie_name
        )


class RequestGuard:
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
        # browsers must not store reports of machines
        stored = "no-store" if "/api/" in scope["path"] else "no-cache"
        added = {**self._headers, "Cache-Control": stored}

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
    """Return whether a body is too long, or has an unknown length, unlike those of browsers."""
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
    return RequestGuard(Starlette(routes=[below], lifespan=lifespan), access)


def listen(port: int) -> socket.socket:
    """Return a socket on this computer only; port 0: a free one. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()  # the system queues connections until the server runs
    except OSError:
        listener.close()
        raise
    return listener


def serve(
    listener: socket.socket,
    access: Access,
    coordinator: CoordinatorConnection,
    *,
    until_input_ends: bool = False,
) -> None:
    """Serve the page until SIGINT or SIGTERM, or until standard input ends."""
    config = Config(
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
    server = Server(config)

    def end_with_input() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    if until_input_ends:
        threading.Thread(target=end_with_input, daemon=True).start()
    server.run(sockets=[listener])
