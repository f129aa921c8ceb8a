"""The REST API of a coordinator process."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol.rest import openapi
from dora_config.protocol.rest.operations import OPERATIONS

pytestmark = pytest.mark.integration

STUBBORN = """
    import signal
    from dora import Node

    node = Node()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
"""


@dataclass(frozen=True)
class Api:
    fleet: RealFleet

    def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        shown = self.fleet.coordinator.endpoint.headers() | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        if content is not None:
            shown.setdefault("Content-Type", "application/json")
        reply = self.fleet.coordinator.request(path, method=method, headers=shown, body=content)
        assert reply.headers["content-type"] == "application/json", path
        return reply.status, json.loads(reply.body) if method != "HEAD" else None

    def get(self, path: str) -> Any:
        status, found = self.call("GET", path)
        assert status == HTTPStatus.OK, found
        return found

    def post(self, path: str, body: object = None, *, status: int = 200) -> Any:
        found, answer = self.call("POST", path, body)
        assert found == status, answer
        return answer

    def problem(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, str]:
        status, found = self.call(method, path, body, **headers)
        assert status >= 400
        assert found["code"]
        return status, found["error"]


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def fleet(home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    assert home.is_dir()
    with real_fleet(shared_workspace, None) as made:
        yield made


@pytest.fixture
def api(fleet: RealFleet) -> Iterator[Api]:
    """The API of a coordinator without dataflows."""
    found = Api(fleet)
    yield found
    found.call("POST", "/api/dataflows/stop", {"all": True, "force": True})
    found.call("POST", "/api/dataflows/clean")


def test_the_life_of_a_dataflow(api: Api, shared_workspace: Workspace) -> None:
    text = counting(shared_workspace).read_text()
    given = {"descriptor": text, "directory": str(shared_workspace.path), "name": "a/b"}
    uuid = api.post("/api/dataflows", given, status=201)["uuid"]
    api.fleet.wait_for_messages(uuid)
    assert api.get("/api/dataflows/a%2Fb")["uuid"] == uuid
    rows = api.get(f"/api/nodes?dataflow={uuid}")["nodes"]
    assert {row["node"] for row in rows} == {"counter", "collector"}

    def node() -> Any:
        return api.get("/api/nodes/counter?dataflow=a/b")

    wait_until(lambda: node()["pid"] is not None, what="the process id of the node")
    before = node()["pid"]
    assert api.post("/api/nodes/counter/restart", {"grace": 0.5}) == {"node": "counter"}
    wait_until(lambda: node()["pid"] not in (None, before), what="the new process of the node")
    api.post("/api/nodes/collector/stop")  # the counter runs on, and with it the dataflow
    api.post("/api/nodes/collector/restart")  # starts it again
    restarted = api.post("/api/dataflows/a%2Fb/restart")
    assert restarted["old"] == uuid
    assert [one["ok"] for one in api.post("/api/dataflows/stop")["dataflows"]] == [True]
    api.post("/api/dataflows/a%2Fb/start", status=201)
    api.post("/api/dataflows/stop", {"all": True, "force": True})
    assert len(api.post("/api/dataflows/clean")["dataflows"]) == 3
    assert api.get("/api/status")["active_dataflows"] == 0


def test_errors_are_sentences_with_statuses(api: Api) -> None:
    no_token = api.fleet.coordinator.request("/api/nodes", headers={})
    assert (no_token.status, json.loads(no_token.body)["code"]) == (401, "unauthorized")
    for method, path, body, status, sentence in (
        ("GET", "/api/dataflows/x", None, 404, 'no dataflow with name "x"'),
        ("GET", "/api/dataflows/x/y", None, 404, "/api/dataflows/x/y does not exist"),
        ("GET", "/api/nodes?colour=red", None, 400, 'unknown argument "colour"'),
        ("GET", "/api/machines?connected=maybe", None, 400, "connected: "),
        ("POST", "/api/machines", None, 405, "/api/machines does not allow POST, only GET"),
        ("GET", "/api/dataflows/x/stop", None, 405, "does not allow GET, only POST"),
        ("POST", "/api/dataflows/stop", None, 404, "No dataflows are running."),
        ("POST", "/api/dataflows/x/stop", b"{", 400, "the body is not valid JSON"),
        ("POST", "/api/dataflows/x/stop", b"[" * 100_000, 400, "the body is not valid JSON"),
        ("POST", "/api/dataflows/x/stop", b"[]", 400, "the body must be a JSON object"),
        ("POST", "/api/dataflows/x/stop", {"grace": -1}, 400, "grace: "),
        ("POST", "/api/dataflows/x/stop", {"dataflow": "y"}, 400, '"dataflow" is in the path'),
        ("POST", "/api/dataflows?name=x", None, 400, "put arguments into a JSON body"),
        ("POST", "/api/dataflows", {}, 400, "descriptor: Field required"),
    ):
        found = api.problem(method, path, body)
        assert found[0] == status, path
        assert sentence in found[1], found[1]
    plain = api.problem("POST", "/api/dataflows/stop", b"x", Content_Type="text/plain")
    assert plain == (400, "the body needs the header Content-Type: application/json")
    other = api.problem("GET", "/api/nodes", User_Agent="dora/9.0 protocol/9.0")
    assert other[0] == 400
    assert "dora 9.0 (protocol 9.0) and coordinator" in other[1]
    assert api.problem("POST", "/api/nodes/a/stop", Origin="https://example.org")[0] == 403
    assert "ERROR" not in api.fleet.coordinator.process.stderr


def test_every_described_path_is_served(api: Api) -> None:
    assert api.get("/api/openapi.json") == json.loads(json.dumps(openapi.document()))
    for operation in OPERATIONS:
        path = operation.path.replace("{", "").replace("}", "")
        status, found = api.call(
            operation.method, path, {"wrong": 1} if operation.method == "POST" else None
        )
        assert status in (200, 400, 404)
        assert status == 200 or "does not exist" not in found["error"], path
        if operation.method == "GET":
            assert api.call("HEAD", path)[0] == status


def test_a_request_without_its_client_is_dropped(api: Api, workspace: Workspace) -> None:
    """A client that disconnects while its request waits leaves nothing behind."""
    workspace.node("stubborn", STUBBORN)
    path = workspace.dataflow({"nodes": [{"id": "stubborn", "path": "stubborn.py"}]})
    api.fleet.start(path, "--name", "slow")
    headers = "\r\n".join(f"{k}: {v}" for k, v in api.fleet.coordinator.endpoint.headers().items())
    with socket.create_connection(("127.0.0.1", api.fleet.port)) as connection:
        connection.sendall(
            f"POST /api/dataflows/slow/stop HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode()
        )
        wait_until(lambda: api.get("/api/dataflows/slow")["status"] == "Stopping", what="the stop")
    ended = api.post("/api/dataflows/slow/stop", {"force": True})
    assert [one["name"] for one in ended["dataflows"]] == ["slow"]
