"""Answers of the server: limits of requests, caches, and downloads that are cut off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dora_config.access import Endpoint
from dora_config.control_plane import ControlConnection
from dora_ui.actions import Actions, Forwarded
from dora_ui.connection import LocalRuns
from dora_ui.server import MAX_BODY, Access, RequestGuard

PORT = 4100
ACCESS = Access(port=PORT, session="secret", key="key", folder="f", read_only=False)
HEADERS = {
    "host": f"127.0.0.1:{PORT}",
    "origin": f"http://127.0.0.1:{PORT}",
    "cookie": f"dora_ui_{PORT}=secret",
    "content-type": "application/json",
}


UUID = "8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c11"


def answered(
    application: ASGIApp,
    path: str = "/f/api/x",
    *,
    kind: str = "http",
    method: str = "POST",
    query: str = "",
    **headers: str,
) -> list[Message]:
    """Return the messages of an answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        scope: dict[str, Any] = {
            "type": kind,
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in (HEADERS | headers).items()],
        }
        with anyio.fail_after(30):
            await application(scope, receive, send)

    anyio.run(run)
    return sent


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": str(MAX_BODY)}, 200),
        ({"content-length": str(MAX_BODY + 1)}, 413),
        ({"transfer-encoding": "chunked"}, 413),
    ],
)
def test_a_long_body_is_refused(headers: dict[str, str], status: int) -> None:
    start, *_ = answered(RequestGuard(PlainTextResponse("fine"), ACCESS), **headers)
    assert start["status"] == status


@pytest.mark.parametrize(
    ("path", "expected"), [("/f/api/recordings", b"no-store"), ("/f/static/app.css", b"no-cache")]
)
def test_browsers_do_not_store_what_machines_report(path: str, expected: bytes) -> None:
    start, *_ = answered(RequestGuard(PlainTextResponse("fine"), ACCESS), path)
    assert dict(start["headers"])[b"cache-control"] == expected


def test_a_websocket_needs_the_session() -> None:
    async def accepting(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    guard = RequestGuard(accepting, ACCESS)
    assert answered(guard, kind="websocket") == [{"type": "websocket.accept"}]
    for headers in ({"cookie": ""}, {"origin": "http://127.0.0.1:1"}):
        (refused,) = answered(guard, kind="websocket", **headers)
        assert (refused["type"], refused["code"]) == ("websocket.close", 1008)


def test_the_link_starts_a_session_once() -> None:
    access = replace(ACCESS, key="key")
    guard = RequestGuard(PlainTextResponse("fine"), access)
    start, *_ = answered(guard, "/", method="GET", query="key=key", cookie="")
    assert start["status"] == 200
    assert dict(start["headers"])[b"set-cookie"].startswith(b"dora_ui_4100=secret; HttpOnly")
    start, *_ = answered(guard, "/", method="GET", query="key=key", cookie="")
    assert start["status"] == 403


@pytest.mark.parametrize("operation", ["start", "restart"])
def test_a_local_run_is_not_started_again(operation: str) -> None:
    application = Starlette(routes=Actions(LocalRuns(None)).routes())
    start, body = answered(application, f"/api/dataflows/{UUID}/{operation}")
    assert (start["status"], b"this needs a coordinator" in body["body"]) == (500, True)


class Answer:
    """An answer of a coordinator that ends too early."""

    status, headers, length = 200, {"content-length": "9"}, 9

    def read(self, size: int) -> bytes:
        found = b"begin"[: self.length - 4]
        self.length -= len(found)
        return found


def test_a_download_without_a_coordinator_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    connection = ControlConnection(Endpoint("127.0.0.1", 1), timeout=1)
    *_, last = answered(Forwarded(connection, Answer(), "/x"))  # type: ignore[arg-type]
    assert last == {"type": "http.response.body", "body": b"begin", "more_body": True}
    assert caplog.messages == ["/x has ended early: 4 bytes are missing"]
