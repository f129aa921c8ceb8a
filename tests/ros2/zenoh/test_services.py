"""Services between two sessions of ours, over a router."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ros2.routers import Router
from support.waiting import wait_until

from dora_ros2.connection import RosNode
from dora_ros2.errors import NoReply, SessionError
from dora_ros2.types import Types
from dora_ros2.zenoh.endpoints import ServiceClient, ServiceRequest
from dora_ros2.zenoh.tokens import Attachment

ADD = Types().service("example_interfaces/AddTwoInts")


@contextmanager
def client_and_server(
    router: Router,
) -> Iterator[tuple[ServiceClient, list[ServiceRequest]]]:
    """A client that sees a server, which keeps its requests."""
    requests: list[ServiceRequest] = []
    with router.open() as one, router.open() as other:
        RosNode(other, "server", "/robot").service_server("add", ADD, requests.append)
        client = RosNode(one, "client").service_client("/robot/add", ADD)
        assert client.wait_for_server(30)
        yield client, requests


def request_of(requests: list[ServiceRequest], number: int = 1) -> ServiceRequest:
    wait_until(lambda: len(requests) >= number, what="a request")
    return requests[number - 1]


def failure(future: Future[bytes]) -> str:
    with pytest.raises(NoReply) as raised:
        future.result(30)
    return str(raised.value)


def test_several_requests_wait_and_each_gets_its_reply(router: Router) -> None:
    with client_and_server(router) as (client, requests):
        futures = [client.call(bytes([number])) for number in range(20)]
        request_of(requests, 20)
        assert not any(future.done() for future in futures)
        for request in reversed(requests):
            assert request.attachment is not None
            assert request.attachment.gid == client.gid
            request.reply(request.payload * 2)
            request.reply(b"once only")
        assert [future.result(30) for future in futures] == [bytes([n, n]) for n in range(20)]
        numbers = {request.attachment.sequence for request in requests if request.attachment}
        assert numbers == set(range(1, 21))


def test_a_reply_carries_the_number_and_gid_of_the_request(router: Router) -> None:
    with client_and_server(router) as (client, requests):
        future = client.call(b"a")
        request = request_of(requests)
        assert request._query is not None
        other = Attachment(2, 0, client.gid).encode()
        request._query.reply(request._server.key, b"of another request", attachment=other)
        request.reply(b"right")
        assert future.result(30) == b"right"


def test_time_outs_are_those_of_each_request(router: Router) -> None:
    with client_and_server(router) as (client, requests):
        patient = client.call(b"a", timeout=None)
        assert failure(client.call(b"b", timeout=0.2)) == "/robot/add: no reply within 0.2 s"
        request_of(requests).reply(b"late")
        assert patient.result(30) == b"late"


def test_errors_of_a_server(router: Router) -> None:
    with client_and_server(router) as (client, requests):
        future = client.call(b"a")
        request_of(requests).fail("out of range")
        assert failure(future) == "/robot/add: the server replied with an error: out of range"
        future = client.call(b"b")
        request_of(requests, 2).close()
        assert failure(future) == "/robot/add: no server, or it ended before it replied"


def test_a_callback_that_fails_answers_with_its_error(router: Router) -> None:
    def on_request(request: ServiceRequest) -> None:
        raise ValueError("bad numbers")

    with router.open() as one, router.open() as other:
        RosNode(other, "server").service_server("add", ADD, on_request)
        client = RosNode(one, "client").service_client("add", ADD)
        assert client.wait_for_server(30)
        assert "bad numbers" in failure(client.call(b""))


def test_a_server_that_closes_ends_its_requests(router: Router) -> None:
    with client_and_server(router) as (client, requests):
        future = client.call(b"a", timeout=None)
        request_of(requests)._server.close()
        assert "ended before it replied" in failure(future)
        wait_until(lambda: not client.available, what="the end of the server")
        assert failure(client.call(b"b")) == (
            "/robot/add: no server, or it ended before it replied"
        )


def test_a_killed_server_ends_its_requests(router: Router, tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        "import sys, time\n"
        "from dora_ros2.types import Types\n"
        "from dora_ros2.connection import RosNode\n"
        "from dora_ros2.zenoh.session import ZenohSession\n"
        "kept = []\n"
        "node = RosNode(ZenohSession(router=sys.argv[1]), 'server')\n"
        "keep = lambda request: (kept.append(request), print(flush=True))\n"
        "node.service_server('add', Types().service('example_interfaces/AddTwoInts'), keep)\n"
        "time.sleep(600)\n"
    )
    with router.open() as session:
        client = RosNode(session, "client").service_client("add", ADD)
        command = [sys.executable, str(program), router.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert client.wait_for_server(60)
                future = client.call(b"a", timeout=None)
                assert process.stdout is not None
                assert process.stdout.readline()
            finally:
                os.kill(process.pid, signal.SIGKILL)
        assert "ended before it replied" in failure(future)


def test_a_server_of_another_type_is_named(router: Router) -> None:
    with client_and_server(router) as (client, _):
        newer: Any = SimpleNamespace(dds_name=ADD.dds_name, hash="RIHS01_e2")
        other = client.node.service_client("/robot/add", newer)
        assert failure(other.call(b"")) == (
            "/robot/add: the server in /robot/server has the type example_interfaces/srv/AddTwoInts"
            f" {ADD.hash}, this client example_interfaces/srv/AddTwoInts RIHS01_e2"
        )


def test_closing_a_client_fails_its_requests(router: Router) -> None:
    with client_and_server(router) as (client, requests):
        futures = [client.call(b"a", timeout=None) for _ in range(3)]
        cancelled = client.call(b"a", timeout=None)
        assert cancelled.cancel()
        request_of(requests, 4)
        threading.Thread(target=client.close).start()
        wait(futures, 30)
        assert {failure(future) for future in futures} == {"/robot/add: the client was closed"}
        with pytest.raises(SessionError, match="the client of /robot/add is closed"):
            client.call(b"")
        for request in requests:
            request.reply(b"too late")


def test_a_reply_after_the_session_ended(router: Router) -> None:
    with client_and_server(router) as (client, requests):
        future = client.call(b"a", timeout=None)
        request = request_of(requests)
        request._server.node.connection.close()
        request.reply(b"too late")
        assert "ended before it replied" in failure(future)
