"""A new `Node` attaches to the runner that started it, or to a running dataflow."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from support.fake_runner import DATAFLOW_ID, FakeRunner

from dora_node_api import Node, SetUpError
from dora_node_api.backends import dynamic


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runtime directories."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "dora" / "run"


def index(roots: Path, number: int, runner: FakeRunner | None = None, **values: Any) -> None:
    """An index file as a runner writes it."""
    folder = roots / str(number)
    folder.mkdir(parents=True)
    entry = {
        "dataflow_id": DATAFLOW_ID,
        "name": "flow",
        "nodes": ["cam", "view"],
        "dynamic_nodes": ["view"],
        "pid": os.getpid(),
        "start_time": 1,
        "boot_id": "boot",
        "foreground": True,
        "socket": "n" if runner is None else str(runner.path),
    }
    (folder / "index.json").write_text(json.dumps({**entry, **values}))


def test_a_dynamic_node_finds_its_runner(roots: Path, runner: FakeRunner) -> None:
    runner.add_node("view", dynamic=True)
    index(roots, 0, pid=2**22 + 1)  # its runner is gone
    index(roots, 1, runner)
    (roots / "2").mkdir()
    (roots / "2" / "index.json").write_text("{")
    with Node("view") as node:
        assert node.dataflow_id() == DATAFLOW_ID
        hello = runner.nodes["view"].hello
        assert hello is not None
        assert hello.incarnation is None
        assert hello.pid == os.getpid()


def test_a_dynamic_node_finds_the_runner_of_a_service(
    roots: Path, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dynamic, "SERVICES", tmp_path)
    runner.add_node("view", dynamic=True)
    index(tmp_path / "dora-daemon-fleet", 0, runner)
    with Node("view") as node:
        assert node.dataflow_id() == DATAFLOW_ID


def test_a_process_is_several_dynamic_nodes(roots: Path, runner: FakeRunner) -> None:
    runner.add_node("view", dynamic=True)
    runner.add_node("cam", dynamic=True)
    runner.connect("cam/image", "view/image")
    index(roots, 1, runner, dynamic_nodes=["cam", "view"])
    with Node("view") as view, Node("cam") as cam, Node("view") as again:
        cam.send_output("image", b"x")
        event = again.next(timeout=60)
        assert event is not None
        assert event["id"] == "image"
        assert view.is_empty()


def test_two_dataflows_with_that_id(roots: Path, runner: FakeRunner) -> None:
    index(roots, 0, runner)
    index(roots, 1, runner, name="other")
    with pytest.raises(SetUpError, match=r"node id `view`: .*Pass the name or the UUID"):
        Node("view")


@pytest.mark.parametrize("dataflow", ["mine", "0197"])
def test_a_dataflow_by_its_name_or_uuid(roots: Path, runner: FakeRunner, dataflow: str) -> None:
    runner.add_node("view", dynamic=True)
    index(roots, 0, name="other", dataflow_id="f0")
    index(roots, 1, runner, name="mine", dataflow_id="0197-a")
    with Node("view", dataflow=dataflow) as node:
        assert node.dataflow_id() == DATAFLOW_ID
    with pytest.raises(SetUpError, match=r"no dataflow `theirs` .*; running: other \(f0\), mine"):
        Node("view", dataflow="theirs")


@pytest.mark.parametrize("of_environment", [False, True], ids=["argument", "environment"])
def test_the_port_of_a_daemon_selects_its_dataflow(
    roots: Path, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, of_environment: bool
) -> None:
    runner.add_node("view", dynamic=True)
    index(roots, 0, daemon_port=53291)
    index(roots, 1, runner, daemon_port=6000)
    index(roots, 2)  # `dora run`
    monkeypatch.setenv("DORA_DAEMON_LOCAL_LISTEN_PORT", "6000" if of_environment else "53291")
    with Node("view", daemon_port=None if of_environment else 6000) as node:
        assert node.dataflow_id() == DATAFLOW_ID


def test_a_dataflow_without_a_daemon_is_found_with_any_port(
    roots: Path, runner: FakeRunner
) -> None:
    runner.add_node("view", dynamic=True)
    index(roots, 0, daemon_port=53291)
    index(roots, 1, runner)
    with Node("view", daemon_port=6000) as node:
        assert node.dataflow_id() == DATAFLOW_ID


def test_the_port_of_another_daemon(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index(roots, 0, daemon_port=53291)
    with pytest.raises(SetUpError, match=r"port 6000 has no .* of the daemon with port 53291\."):
        Node("view", daemon_port=6000)
    index(roots, 1, daemon_port=6000)
    with pytest.raises(SetUpError, match=r"port 6000\. Pass the name or the UUID of one"):
        Node("view")
    monkeypatch.setenv("DORA_DAEMON_LOCAL_LISTEN_PORT", "no port")
    with pytest.raises(SetUpError, match="DORA_DAEMON_LOCAL_LISTEN_PORT is 'no port'"):
        Node("view")


def test_an_id_that_is_not_dynamic(roots: Path, runner: FakeRunner) -> None:
    index(roots, 0, runner)
    with pytest.raises(RuntimeError, match="is not dynamic"):
        Node("cam")


def test_no_such_node(roots: Path, runner: FakeRunner) -> None:
    with pytest.raises(RuntimeError, match="no dataflow is running"):
        Node("unknown")
    index(roots, 0, runner)
    with pytest.raises(RuntimeError, match=r"dynamic node running\? \(flow .* has `view`\)"):
        Node("unknown")


def test_the_config_of_the_runner_wins_over_an_id(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.add_node("a")
    monkeypatch.setenv("DORA_NODE_CONFIG", runner.environment("a")["DORA_NODE_CONFIG"])
    with Node("something else") as node:
        assert node.node_id == "a"


def test_no_runner_and_no_terminal() -> None:
    with pytest.raises(RuntimeError, match="dora run"):
        Node()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("node_id: x", "not written by this dora"),
        ('{"dataflow_id": "x"}', "not written by this dora"),
        ('{"dora": "python", "protocol": 99}', "version 99"),
        ('{"dora": "python", "protocol": 1, "socket": 3}', "socket is int, expected str"),
        (
            '{"dora": "python", "protocol": 1, "socket": "/nowhere/n", "node_id": "a",'
            ' "incarnation": 1}',
            "cannot reach its runner",
        ),
    ],
)
def test_configs_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, config: str, problem: str
) -> None:
    monkeypatch.setenv("DORA_NODE_CONFIG", config)
    with pytest.raises(SetUpError, match=problem):
        Node()


def test_a_node_unknown_to_the_runner(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.add_node("a")
    config = runner.environment("a")["DORA_NODE_CONFIG"].replace('"a"', '"b"')
    monkeypatch.setenv("DORA_NODE_CONFIG", config)
    with pytest.raises(SetUpError, match="node `b` does not exist"):
        Node()


def test_another_program_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection = listener.accept()[0]
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.recv(10_000)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    config = {"dora": "python", "protocol": 1, "socket": str(path), "node_id": "a"}
    monkeypatch.setenv("DORA_NODE_CONFIG", json.dumps({**config, "incarnation": 1}))
    with pytest.raises(SetUpError, match="does not follow the protocol"):
        Node()
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("setting", "size"), [("1000", 1000), ("256MB", 256 * 2**20), ("1g", 2**30), ("4 KiB", 4096)]
)
def test_pool_sizes(monkeypatch: pytest.MonkeyPatch, setting: str, size: int) -> None:
    from dora_node_api.transport.producer.pool import pool_size

    monkeypatch.setenv("DORA_NODE_SHM_POOL_SIZE", setting)
    assert pool_size(None) == size
    assert pool_size(5) == 5
    monkeypatch.setenv("DORA_NODE_SHM_POOL_SIZE", "much")
    with pytest.raises(SetUpError, match="much"):
        pool_size(None)
