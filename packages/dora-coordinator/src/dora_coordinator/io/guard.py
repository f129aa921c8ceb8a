"""Refuses requests without TLS, without the token, above a limit, or in too fast succession."""

from __future__ import annotations

import logging
from typing import Final

import anyio
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from dora_config.access import address_text
from dora_config.access_token import Token
from dora_config.control_plane import AUTHORITY_PATH
from dora_coordinator.io.limits import ConnectionLimits, as_ipv4, is_loopback

HEALTH_ROUTES: Final = ("/health", "/api/health")
_OPEN_ROUTES: Final = (*HEALTH_ROUTES, AUTHORITY_PATH)

logger = logging.getLogger("dora.coordinator")


class Guard:
    """ASGI application in front of another one."""

    def __init__(self, inner: ASGIApp, limits: ConnectionLimits, token: Token | None) -> None:
        """``token`` None: no authentication, and plain HTTP from everywhere."""
        self._inner = inner
        self._limits = limits
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in _OPEN_ROUTES:
            await self._inner(scope, receive, send)
            return
        if self._token is not None and not _is_private(scope):
            await _deny(scope, receive, send, 426, _needs_tls(scope))
            return
        trusted = self._token is not None and self._shows_token(scope)
        if not trusted:
            address = as_ipv4(scope["client"][0]) if scope.get("client") else ""
            if self._limits.too_fast(address, anyio.current_time()):
                await _deny(scope, receive, send, 429, "too many connections from your address\n")
                return
            if self._token is not None:
                logger.warning("refused a connection from %s: missing or wrong token", address)
                message = "missing or wrong token; send the header Authorization: Bearer TOKEN\n"
                await _deny(scope, receive, send, 401, message)
                return
        if not self._limits.opened():
            await _deny(scope, receive, send, 503, "too many connections are open\n")
            return
        try:
            await self._inner(scope, receive, send)
        finally:
            self._limits.closed()

    def _shows_token(self, scope: Scope) -> bool:
        assert self._token is not None
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        return scheme.lower() == "bearer" and self._token.has_secret(token.strip())


def _is_private(scope: Scope) -> bool:
    """Return whether the connection uses TLS or stays within this machine."""
    if scope["scheme"] in ("https", "wss"):
        return True
    client, server = (scope[end][0] if scope.get(end) else "" for end in ("client", "server"))
    return is_loopback(client) or (bool(client) and client == server)


def _needs_tls(scope: Scope) -> str:
    host, port = scope["server"]
    return (
        f"use TLS: https://{address_text(as_ipv4(host), port)}{scope['path']}, with the "
        "certificate that `dora cluster ca` prints\n"
    )


async def _deny(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 426: {"Upgrade": "TLS/1.3"}}.get(status)
    response = PlainTextResponse(message, status, headers)
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.send_denial_response(response)
    else:
        await response(scope, receive, send)
