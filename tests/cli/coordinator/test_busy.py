"""Commands in front of a coordinator that accepts no connection now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support.command_line import Dora
from support.serving import served

from dora_cli.coordinator.client import Client
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost, CoordinatorUnreachable
from dora_cluster.coordinator import queries
from dora_cluster.operations import doctor
from dora_cluster.operations.steps import Findings
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.protocol.control import ClusterStatus


@contextmanager
def refusing(
    status: int, media_type: str = "text/plain; charset=utf-8", text: str = "too many connections\n"
) -> Iterator[Cluster]:
    """The cluster of a coordinator that answers all requests with an HTTP status."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = refuse

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, served(server):
        address = Coordinator(addr="127.0.0.1", port=server.server_port)
        yield Cluster(coordinator=address, machines=(Machine(id="robot", host="robot"),))


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_coordinator_is_asked_again_and_never_replaced(status: int) -> None:
    with refusing(status) as cluster:
        assert queries.fetch_report(cluster) is None
        assert queries.wait_for_daemons(cluster, ["robot"], within=0.0) == {}
        for ask in (
            queries.report_if_running,
            queries.require_coordinator,
            queries.release_of,
            queries.fetch_nodes,
            queries.destroy,
        ):
            with pytest.raises(CoordinatorBusy, match=r"\(too many connections\): try again in a"):
                ask(cluster)


def test_a_key_is_not_silently_left_as_it_is() -> None:
    with refusing(503) as cluster, pytest.raises(CoordinatorBusy):
        queries.allow_new_key(cluster, "robot", busy_timeout=0.0)
    queries.allow_new_key(cluster, "robot", busy_timeout=0.0)  # it no longer listens


def test_the_page_of_another_server_is_not_printed() -> None:
    with (
        refusing(503, "text/html", "<html>\nunavailable") as cluster,
        Client(queries.endpoint_of(cluster)) as client,
    ):
        for use in (lambda: client.request(ClusterStatus()), lambda: client.streams):
            with pytest.raises(CoordinatorUnreachable, match=r"no coordinator listens at .* 503$"):
                use()


@pytest.mark.parametrize("status", [403, 500])
def test_other_statuses_end_a_wait(status: int) -> None:
    with refusing(status) as cluster, pytest.raises(CoordinatorLost, match=f"status {status}: too"):
        queries.fetch_report(cluster)


def test_a_wait_continues_after_a_coordinator_that_ended_during_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ending(nullcontext[Any]):
        def request(self, *_: object, **__: object) -> None:
            raise CoordinatorLost("the coordinator closed the connection")

    ending = Ending()
    ending.enter_result = ending
    cluster = Cluster(
        coordinator=Coordinator(addr="10.0.0.1"), machines=(Machine(id="robot", host="10.0.0.9"),)
    )
    monkeypatch.setattr(queries, "open_client", lambda _: ending)
    assert queries.fetch_report(cluster) is None
    with pytest.raises(CoordinatorLost):
        queries.report_if_running(cluster)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (401, "refuses this account"),
        (429, "accepts no connection now"),
        (500, "gives no report"),
        (503, "accepts no connection now"),
    ],
)
def test_the_doctor_distinguishes_why(status: int, result: str) -> None:
    findings = Findings()
    with refusing(status) as cluster:
        report, line = doctor._ask_coordinator(cluster, findings)
        assert report is None
        assert line == f"Coordinator: {queries.endpoint_of(cluster)}, {result}"
    assert len(findings.problems) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("why",),
        ("logs", "--all-nodes"),
        ("record", "--attach", "flow"),
    ],
    ids=lambda words: words[0],
)
def test_no_command_goes_on_as_if_no_coordinator_ran(dora: Dora, words: tuple[str, ...]) -> None:
    with refusing(503) as cluster:
        shown = dora(*words, "--coordinator-port", str(cluster.coordinator.port))
    assert shown.code != 0
    assert "(too many connections): try again in a minute" in shown.err
