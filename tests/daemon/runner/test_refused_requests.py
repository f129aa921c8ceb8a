"""Requests that a runner refuses: its dataflow runs on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.runner.runs import BackgroundRun, background
from support.runner.ticking import TICKING, finish, prepared, refused, resolved
from support.workspace import Workspace

from dora_config.protocol import runner as protocol

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def run(home: Path, shared_workspace: Workspace) -> Iterator[BackgroundRun]:
    assert home.is_dir()
    with background(shared_workspace, prepared(shared_workspace)) as made:
        made.wait_for_phase("running")
        yield made
        assert finish(made).ok


def test_another_major_version_is_refused_with_both_versions(run: BackgroundRun) -> None:
    major, minor = protocol.RUNNER_PROTOCOL
    message = refused(run, protocol.Handshake(protocol=(major + 1, 0)))
    assert f"{major}.{minor}" in message
    assert f"{major + 1}.0" in message
    greeting = run.request(protocol.Handshake(protocol=(major, minor + 1)))
    assert isinstance(greeting, protocol.HandshakeReply)


def test_an_unknown_request_of_a_newer_daemon_is_refused_by_name(run: BackgroundRun) -> None:
    sock = run._connected(5.0)
    sock.sendall(b'{"id": 77, "request": {"kind": "levitate", "height": 3}}\n')
    reply = json.loads(sock.recv(65536))
    assert reply["id"] == 77
    assert '"levitate"' in reply["reply"]["message"]
    sock.sendall(b'{"id": 78, "request": {"kind": "get_status", "new_field": 1}}\n')
    assert json.loads(sock.recv(1 << 20))["reply"]["kind"] == "status"


def test_a_malformed_line_closes_the_connection_only(run: BackgroundRun) -> None:
    sock = run._connected(5.0)
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert b"invalid JSON" in sock.recv(65536)
    assert _ends(sock)
    run._socket = None


def _ends(sock: socket.socket) -> bool:
    with sock:
        return sock.recv(65536) == b""


def test_a_node_that_cannot_be_prepared_is_not_added(
    run: BackgroundRun, shared_workspace: Workspace
) -> None:
    missing = resolved(shared_workspace, id="extra", path="missing.py")
    assert "Could not find source path" in refused(run, protocol.AddNode(node=missing))
    assert len(run.status().nodes) == 2


def test_a_failed_replacement_leaves_the_old_process_running(
    run: BackgroundRun, shared_workspace: Workspace
) -> None:
    first = run.wait_for_state("ticker", "Running")
    shared_workspace.node("broken", "raise SystemExit('no good')")
    fields = {**TICKING["nodes"][0], "path": "broken.py"}
    spec = resolved(shared_workspace, **fields)
    opened = []
    for _ in range(2):
        message = refused(run, protocol.ReplaceNode(node=spec))
        assert "exited before connecting: no good" in message
        files = [path.resolve().name for path in Path(f"/proc/{run.pid()}/fd").iterdir()]
        opened.append(files.count("log_ticker.jsonl"))
    assert opened[1] == opened[0]
    message = refused(run, protocol.ReplaceNode(node=spec.model_copy(update={"outputs": ()})))
    assert "lacks outputs that other nodes read: count" in message
    message = refused(run, protocol.ReplaceNode(node=spec.model_copy(update={"inputs": {}})))
    assert "must have the same inputs" in message
    assert run.wait_for_state("ticker", "Running").pid == first.pid
