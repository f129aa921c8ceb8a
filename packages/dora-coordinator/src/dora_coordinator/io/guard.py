"""Refuses requests without TLS, without the token, above a limit, or in too fast succession."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

import anyio
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from dora_config.access import address_text
from dora_config.control_plane import AUTHORITY_PATH
from dora_config.protocol.code import FILES_PATH
from dora_config.protocol.rest.paths import UPLOADS_PATH, is_rest
from dora_coordinator.io.connections import Renewal
from dora_coordinator.io.limits import (
    AttemptVerdict,
    ConnectionLimits,
    PendingConnection,
    as_ipv4,
    is_loopback,
)
from dora_coordinator.io.rest.errors import json_error
from dora_coordinator.state.tokens import Accepted

HEALTH_ROUTES: Final = ("/health", "/api/health")
DAEMON_ROUTE: Final = "/api/daemon"
PENDING: Final = "dora.pending"
"""Key of the `PendingConnection` in the state of a request's scope."""
RENEWAL: Final = "dora.renewal"
"""Key of the connection's `Renewal` in the scope of an accepted request."""
OF_MACHINE: Final = "dora.machine"
"""Key in the scope of an accepted request: whether its token is that of a machine."""
ONE_REQUEST: Final = {"Connection": "close"}
"""Headers of answers without a token, so that such a connection does not stay open."""
_CODES: Final = {
    401: "unauthorized",
    403: "forbidden",
    426: "tls_required",
    429: "too_many_requests",
    503: "unavailable",
}
_MACHINE_ONLY: Final = (
    403,
    "the token of a machine permits only what its daemon does; use the token of the cluster, which "
    "the account of the coordinator has (~/.config/dora/token)\n",
)
_OPEN_ROUTES: Final = (*HEALTH_ROUTES, AUTHORITY_PATH)

logger = logging.getLogger("dora.coordinator")


class TokenCheck(Protocol):
    """The tokens that clients and daemons may show."""

    def check(self, given: str) -> Accepted | None:
        """Return None for a token that is not valid."""


class Guard:
    """ASGI application in front of another one."""

    def __init__(self, inner: ASGIApp, limits: ConnectionLimits, tokens: TokenCheck | None) -> None:
        """``tokens`` None: no authentication, and plain HTTP from everywhere."""
        self._inner = inner
        self._limits = limits
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in _OPEN_ROUTES:
            await self._inner(scope, receive, send)
            return
        pending: PendingConnection | None = scope.get("state", {}).get(PENDING)
        refusal = self._refusal(scope)
        if refusal is not None:
            await _deny(scope, receive, send, *refusal)
            return
        if pending is not None:
            pending.accepted()
        if not self._limits.opened():
            await _deny(scope, receive, send, 503, "too many connections are open\n")
            return
        try:
            await self._inner(scope, receive, send)
        finally:
            self._limits.closed()

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and text for a request that is refused."""
        address = as_ipv4(scope["client"][0]) if scope.get("client") else ""
        if _is_of_another_site(scope):
            return 403, "requests by pages of other sites are refused (Origin is not this host)\n"
        if self._tokens is None and _is_of_renamed_site(scope):
            return 403, (
                "without authentication, requests must name this host by address, localhost or "
                f'"{socket.gethostname()}"; other names may come from a web page (DNS rebinding)\n'
            )
        if self._tokens is None and (is_rest(scope["path"]) or _is_code(scope["path"])):
            return None  # several requests may share a connection
        if self._tokens is None:
            too_fast = self._limits.failed(address, anyio.current_time()) is AttemptVerdict.BLOCKED
            return (429, "too many connections from your address\n") if too_fast else None
        if not _is_private(scope):
            return 426, _needs_tls(scope)
        given = _shown_token(scope)
        accepted = None if given is None else self._tokens.check(given)
        if accepted is not None:
            # a client of plain HTTP does not have the hash of the authority yet
            outdated = scope["scheme"] == "ws" or not accepted.current
            scope[RENEWAL] = Renewal.NOW if outdated else Renewal.LATER
            scope[OF_MACHINE] = accepted.machine
            return _MACHINE_ONLY if accepted.machine and not _is_for_machines(scope) else None
        return self._failure(address)

    def _failure(self, address: str) -> tuple[int, str]:
        """Count and log a failed authentication."""
        failure = self._limits.failed(address, anyio.current_time())
        if failure is AttemptVerdict.BLOCKED:
            return 429, "too many failed authentications from your address; wait a minute\n"
        logger.warning("refused a connection from %s: missing or wrong token", address)
        if failure is AttemptVerdict.LAST:
            logger.warning(
                "%s: too many failed authentications; further ones are refused without a line here "
                "until there have been fewer within a minute",
                address,
            )
        return 401, "missing or wrong token; send the header Authorization: Bearer TOKEN\n"


def _is_for_machines(scope: Scope) -> bool:
    """Return whether a request is one that daemons send."""
    path: str = scope["path"]
    method: str = scope.get("method", "GET")
    if path == DAEMON_ROUTE:
        return True
    if path.startswith(f"{FILES_PATH}/"):
        return method in ("GET", "HEAD", "PUT")
    return path.startswith(f"{UPLOADS_PATH}/") and method == "PUT"


def _is_code(path: str) -> bool:
    """Return whether a path is the store of code or one of its files."""
    return path == FILES_PATH or path.startswith(f"{FILES_PATH}/")


def _shown_token(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, token = given[0].decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _is_of_another_site(scope: Scope) -> bool:
    """Return whether a browser sends the request for a page of another origin.

    Without authentication, any page could otherwise send requests to this machine.
    """
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


def _is_of_renamed_site(scope: Scope) -> bool:
    """Return whether a request names this host in a way that may be another site's.

    A site's DNS server can return this machine's address for its own name (DNS rebinding), and then
    the site's page in a browser of this machine could send requests and read the answers.
    """
    host = dict(scope["headers"]).get(b"host")
    if host is None:
        return False  # HTTP/1.0: browsers always send it
    own = socket.gethostname().lower()
    with suppress(ValueError):
        name = urlsplit(f"//{host.decode('latin-1')}").hostname or ""
        if name in ("localhost", own, f"{own}.local"):
            return False
        ip_address(name)
        return False
    return True


def _is_private(scope: Scope) -> bool:
    """Return whether the connection uses TLS or stays within this machine."""
    return scope["scheme"] in ("https", "wss") or is_local(scope)


def is_local(scope: Scope) -> bool:
    """Return whether the connection comes from this machine."""
    client, server = (scope[end][0] if scope.get(end) else "" for end in ("client", "server"))
    return is_loopback(client) or (bool(client) and client == server)


def _needs_tls(scope: Scope) -> str:
    host, port = scope["server"]
    return (
        f"use TLS: https://{address_text(as_ipv4(host), port)}{scope['path']}, with the "
        "certificate that `dora cluster ca` prints\n"
    )


async def _deny(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 426: {"Upgrade": "TLS/1.3"}}.get(status, {})
    response: Response
    if is_rest(scope["path"]):
        response = json_error(
            status, _CODES[status], message.strip(), headers=headers | ONE_REQUEST
        )
    else:
        response = PlainTextResponse(message, status, headers | ONE_REQUEST)
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.send_denial_response(response)
    else:
        await response(scope, receive, send)
