"""Requests over HTTPS, in front of a scripted server."""

from __future__ import annotations

import json
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Event
from typing import Any, assert_type

import pytest
from support.fleets.coordinator import free_port
from support.serving import served
from support.waiting import wait_until

from dora_cli.commands import top
from dora_cli.coordinator import client as client_module
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import (
    AccessDenied,
    CoordinatorBusy,
    CoordinatorLost,
    CoordinatorUnreachable,
    RequestFailed,
)
from dora_cli.monitor import Page
from dora_config import control_plane
from dora_config.access import Endpoint
from dora_config.control_plane import Untrusted
from dora_config.protocol.reports import DataflowList, EndedDataflow, ListDataflows, ListNodes
from dora_config.protocol.rest import paths
from dora_daemon.process_tree import daemon_entry
from dora_daemon.process_tree.daemon_entry import DaemonEntry
from dora_daemon.process_tree.runtime_dir import own_identity

Answer = tuple[int, str, bytes]


@contextmanager
def serving(
    answer: Callable[[BaseHTTPRequestHandler], Answer | None],
) -> Iterator[CoordinatorClient]:
    """A client of a server whose answers are those of ``answer``; None: it hangs up."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.rfile = BytesIO(content)  # else the server resets the connection
            found = answer(self)
            self.close_connection = True
            if found is None:
                return
            status, kind, content = found
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_any

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # closing waits for the handlers, and so for their sockets

    with (
        Server(("127.0.0.1", 0), Handler) as server,
        served(server),
        CoordinatorClient(Endpoint("127.0.0.1", server.server_port)) as client,
    ):
        yield client


def kind_of(request: BaseHTTPRequestHandler) -> object:
    return json.loads(request.rfile.read(int(request.headers["Content-Length"])))["kind"]


def always(status: int, body: object, kind: str = "application/json") -> Callable[[Any], Answer]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: (status, kind, content)


def test_a_request_is_a_message_with_the_version_of_the_client() -> None:
    seen: list[tuple[str, object, str]] = []

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        seen.append((request.path, kind_of(request), request.headers["User-Agent"]))
        return 200, "application/json; charset=utf-8", DataflowList().model_dump_json().encode()

    with serving(answer) as client:
        assert client.request(ListDataflows()).dataflows == ()
    ((path, kind, agent),) = seen
    assert (path, kind) == (paths.REQUEST, "list")
    assert agent.startswith("dora/")
    assert " protocol/" in agent


def test_the_answer_has_the_type_that_the_request_names() -> None:
    answer = always(200, {"kind": "dataflows"})
    with serving(answer) as client:
        assert_type(client.request(ListDataflows()), DataflowList)
    with serving(answer) as client, pytest.raises(CoordinatorLost, match="not NodeList"):
        client.request(ListNodes())


def test_the_results_of_nodes_are_part_of_an_error() -> None:
    body = {"error": "no", "code": "failed", "ended": {"uuid": "u", "ok": False}}
    with serving(always(500, body)) as client, pytest.raises(RequestFailed) as failed:
        client.request(ListDataflows())
    assert failed.value.ended == EndedDataflow(uuid="u", ok=False)


@pytest.mark.parametrize(
    ("status", "kind", "error", "text"),
    [
        (404, "application/json", RequestFailed, "no such dataflow"),
        (401, "application/json", AccessDenied, "requires a token, and this account has none"),
        (426, "application/json", AccessDenied, "requires a token"),
        (503, "application/json", CoordinatorBusy, r"\(no such dataflow\): try again in a minute"),
        (429, "application/json", CoordinatorBusy, r"\(no such dataflow\): try again in a minute"),
        (503, "text/plain", CoordinatorBusy, r"\(first\): try again in a minute$"),
        (403, "text/plain", CoordinatorLost, "HTTP status 403: first$"),
        (500, "application/json", RequestFailed, "^no such dataflow"),
        (500, "text/plain", CoordinatorLost, "HTTP status 500: first$"),
        (401, "text/plain", AccessDenied, "requires a token, and this account has none"),
        (502, "text/html", CoordinatorUnreachable, "HTTP status 502$"),
        (503, "text/html", CoordinatorUnreachable, "no coordinator listens at .* status 503$"),
        (401, "text/html", CoordinatorUnreachable, "no coordinator listens at .* status 401$"),
    ],
)
def test_errors_of_the_coordinator(
    status: int, kind: str, error: type[Exception], text: str
) -> None:
    body: object = {"error": "no such dataflow", "code": "not_found", "ended": None}
    if kind != "application/json":
        body = b"first\nsecond\n"
    with (
        serving(always(status, body, kind)) as client,
        pytest.raises(error, match=text),
    ):
        client.request(ListDataflows())


@pytest.mark.parametrize("content", [b"", b"{", b'{"error": 1}', b"[]"])
def test_an_answer_that_is_not_of_the_api(content: bytes) -> None:
    with serving(always(500, content)) as client, pytest.raises(CoordinatorLost):
        client.request(ListDataflows())


def test_a_coordinator_that_hangs_up_or_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda _: None) as client, pytest.raises(CoordinatorLost, match="lost"):
        client.request(ListDataflows())
    monkeypatch.setattr(client_module, "QUERY_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint("127.0.0.1", silent.getsockname()[1])
        with (
            CoordinatorClient(endpoint) as client,
            pytest.raises(CoordinatorLost, match=r"did not answer within 0\.05 s"),
        ):
            client.request(ListDataflows())
        with (
            CoordinatorClient(endpoint) as client,
            pytest.raises(CoordinatorLost, match=r"did not answer within 0\.05 s"),
        ):
            top._snapshot(client, Page(), None)


def test_a_request_after_one_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "QUERY_TIMEOUT", 0.2)
    unblock = Event()

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        if kind_of(request) == "nodes":
            unblock.wait(30)
        return 200, "application/json", b'{"kind": "dataflows"}'

    with serving(answer) as client:
        with pytest.raises(CoordinatorLost, match="did not answer"):
            client.request(ListNodes())
        assert not client.request(ListDataflows()).dataflows
        unblock.set()


def test_a_connection_that_was_closed_while_idle_is_opened_again() -> None:
    with serving(always(200, {"kind": "dataflows"})) as client:
        assert not client.request(ListDataflows()).dataflows
        # The server closes the connection after each answer without a word.
        wait_until(lambda: select.select([client._connection.sock], [], [], 0)[0], what="the end")
        assert not client.request(ListDataflows()).dataflows


def test_a_connection_that_is_lost_in_the_handshake_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class LostInHandshake(ssl.SSLContext):
        def wrap_socket(self, sock: socket.socket, *_: object, **__: object) -> Any:
            socket.socket(fileno=sock.detach()).close()
            raise ConnectionResetError

    monkeypatch.setattr(
        control_plane, "security", lambda _: LostInHandshake(ssl.PROTOCOL_TLS_CLIENT)
    )
    with serving(always(200, {})) as client:
        for _ in range(2):
            with pytest.raises(CoordinatorUnreachable):
                client.request(ListDataflows())


def test_without_a_coordinator_the_remedy_is_named() -> None:
    with (
        CoordinatorClient(Endpoint("127.0.0.1", free_port())) as client,
        pytest.raises(CoordinatorUnreachable, match="with `dora up`, or name another"),
    ):
        client.request(ListDataflows())


def test_a_token_without_authority_is_not_sent_to_another_machine() -> None:
    with (
        CoordinatorClient(Endpoint("192.0.2.1", 6013, "secret")) as client,
        suppress(OSError),
        pytest.raises(Untrusted, match="the token was not sent"),
    ):
        client.request(ListDataflows())


def test_the_coordinator_of_this_machines_daemon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    pid, started, boot = own_identity()

    def connected_to(*places: str) -> None:
        found = [DaemonEntry("i", "robot", pid, started, boot, one, True, 0.0) for one in places]
        monkeypatch.setattr(daemon_entry, "connected_daemons", lambda: found)

    def remedy() -> str:
        with pytest.raises(CoordinatorUnreachable) as raised:
            CoordinatorClient(Endpoint("127.0.0.1", port)).connect()
        return str(raised.value).partition("; ")[2]

    start = "start one on this machine with `dora up`, or name another with --coordinator-addr"
    connected_to()
    assert remedy() == start
    connected_to(f"127.0.0.1:{port}")
    assert remedy() == start
    connected_to("10.0.0.1:6013")
    assert remedy() == (
        "the daemon of this machine has another one: use --coordinator-addr 10.0.0.1:6013"
    )
