"""Requests that the guard of the coordinator's port refuses."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from dora_config.access_token import Token
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.connections import Renewal
from dora_coordinator.io.guard import RENEWAL, Guard
from dora_coordinator.io.limits import ConnectionLimits
from dora_coordinator.io.token_file import TokenFile

HERE = "192.0.2.1"
LIMIT = 3


class Guarded:
    """A guard in front of an application that answers 200."""

    def __init__(self, tokens: TokenFile | None) -> None:
        self._renewal: Renewal | None = None
        self._guard = Guard(
            self._inner, ConnectionLimits(open_at_once=9, untrusted_per_window=LIMIT), tokens
        )

    async def _inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._renewal = scope.get(RENEWAL)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def renewal(self) -> Renewal | None:
        """When the client of the last accepted request receives a new token."""
        return self._renewal

    def get(
        self,
        path: str = "/api/control",
        *,
        client: str = "192.0.2.9",
        scheme: str = "https",
        token: str | None = "secret",
        **headers: str,
    ) -> tuple[int, str]:
        """Status and body of a request; a wrong ``token`` or None fails the authentication."""
        shown = headers if token is None else {"authorization": f"Bearer {token}", **headers}
        kind = "websocket" if scheme.startswith("ws") else "http"
        scope: Scope = {
            "type": kind,
            **({"method": "GET"} if kind == "http" else {}),
            "path": path,
            "scheme": scheme,
            "headers": [(name.encode(), value.encode()) for name, value in shown.items()],
            "client": (client, 40000),
            "server": (HERE, 6013),
            "extensions": {"websocket.http.response": {}},
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            sent.append(message)

        anyio.run(self._guard, scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], body.decode()


def tokens(tmp_path: Path) -> TokenFile:
    authority = Authority(tmp_path / "authority")
    return TokenFile(
        str(Token("secret", authority.sha256)), authority, tmp_path / "tokens.json", (HERE,), 6013
    )


def test_plain_requests_from_the_network_need_tls(tmp_path: Path) -> None:
    guarded = Guarded(tokens(tmp_path))
    for scheme in ("http", "ws"):
        assert guarded.get(scheme=scheme) == (
            426,
            f"use TLS: https://{HERE}:6013/api/control, with the certificate that "
            "`dora cluster ca` prints\n",
        )
    for scheme in ("https", "wss"):
        assert guarded.get(scheme=scheme)[0] == 200
    for path in ("/api/health", "/health", "/api/ca"):
        assert guarded.get(path, scheme="http", token=None)[0] == 200


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "::ffff:127.0.0.1", HERE])
def test_plain_requests_within_the_machine_are_served(tmp_path: Path, client: str) -> None:
    guarded = Guarded(tokens(tmp_path))
    assert guarded.get(client=client, scheme="http")[0] == 200
    assert guarded.get(client=client, scheme="http", token="wrong")[0] == 401


def test_failed_authentications_are_limited_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = Guarded(tokens(tmp_path))
    statuses = [guarded.get(token=None)[0] for _ in range(LIMIT + 3)]
    assert statuses == [401] * LIMIT + [429] * 3
    assert caplog.text.count("refused a connection from 192.0.2.9: missing or wrong token") == LIMIT
    assert caplog.text.count("192.0.2.9: too many failed authentications") == 1
    assert guarded.get()[0] == 200  # others may share the address
    assert guarded.get(token=None, client="192.0.2.10")[0] == 401
    assert "secret" not in caplog.text


def test_a_new_token_is_for_connections_with_an_earlier_one(tmp_path: Path) -> None:
    file = tokens(tmp_path)
    guarded = Guarded(file)
    assert guarded.get(scheme="wss")[0] == 200
    assert guarded.renewal() is Renewal.LATER
    file.rotate(60.0)
    assert guarded.get(scheme="wss")[0] == 200
    assert guarded.renewal() is Renewal.NOW
    assert guarded.get(scheme="wss", token=str(file.current))[0] == 200
    assert guarded.renewal() is Renewal.LATER
    assert guarded.get(client="127.0.0.1", scheme="ws", token=str(file.current))[0] == 200
    assert guarded.renewal() is Renewal.NOW


def test_without_authentication_plain_requests_are_served(tmp_path: Path) -> None:
    guarded = Guarded(None)
    statuses = [guarded.get(scheme="http", token=None)[0] for _ in range(LIMIT + 1)]
    assert statuses == [200] * LIMIT + [429]


def test_pages_of_other_sites_are_refused(tmp_path: Path) -> None:
    """Without authentication, a page in a browser on this machine could start programs."""
    for guarded in (Guarded(tokens(tmp_path)), Guarded(None)):
        for scheme in ("http", "ws"):
            here = {"client": "127.0.0.1", "scheme": scheme, "host": "127.0.0.1:6013"}
            assert guarded.get(origin="http://127.0.0.1:6013", **here)[0] == 200
            for origin in ("https://example.org", "http://127.0.0.1:80", "null"):
                assert guarded.get(origin=origin, **here)[0] == 403


def test_without_authentication_other_names_of_this_host_are_refused(tmp_path: Path) -> None:
    """Another site's DNS server may return the address of this machine.

    Browsers send no Origin with a GET request to the page's own site.
    """
    for name, expected in (
        ("evil.example:6013", 403),
        ("evil.example", 403),
        ("", 403),
        (f"{socket.gethostname().lower()}.evil.example:6013", 403),
        (f"{socket.gethostname().lower()}:6013", 200),
        ("[x", 403),
        ("localhost:6013", 200),
        ("[::1]:6013", 200),
    ):
        here = {"client": "127.0.0.1", "scheme": "http", "host": name}
        assert Guarded(None).get(origin=f"http://{name}", **here)[0] == expected, name
        status, body = Guarded(None).get("/api/nodes", **here)
        assert status == expected, name
        assert status == 200 or json.loads(body)["error"].startswith("without authentication")
        assert Guarded(tokens(tmp_path)).get(origin=f"http://{name}", **here)[0] == 200


def test_without_authentication_the_rest_api_and_code_are_not_limited() -> None:
    guarded = Guarded(None)
    for path in ("/api/nodes", "/api/files", "/api/files/0123"):
        assert {guarded.get(path)[0] for _ in range(2 * LIMIT)} == {200}
    assert [guarded.get()[0] for _ in range(LIMIT + 1)][-1] == 429


def test_refusals_of_the_rest_api_are_json(tmp_path: Path) -> None:
    guarded = Guarded(tokens(tmp_path))
    status, body = guarded.get("/api/nodes", token=None)
    assert (status, json.loads(body)["code"]) == (401, "unauthorized")
    status, body = guarded.get("/api/nodes", scheme="http")
    assert (status, json.loads(body)["code"]) == (426, "tls_required")
