"""All commands of an operator on macOS, with a coordinator there and a daemon on Linux.

No Mac was at hand: ``support.mac`` makes Python processes on Linux look like those of macOS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.dora import run_dora, running_dora
from support.fleets.coordinator import free_port
from support.mac import MAC, SUPPORT
from support.workspace import Workspace

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NEEDS_LINUX = "nodes run on Linux only, and this machine runs macOS"

TALKER = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("count", b"1")
"""
LISTENER = """
    from dora import Node

    for event in Node():
        print(event["type"], flush=True)
"""
FLOW = """
    deploy: {machine: robot, distribute: http}
    nodes:
      - id: talker
        path: talker/talker.py
        inputs: {tick: dora/timer/millis/50}
        outputs: [count]
      - id: listener
        path: listener/listener.py
        inputs: {count: talker/count}
"""
ADDED = """
    id: added
    path: listener/listener.py
    inputs: {count: talker/count}
    deploy: {machine: robot, distribute: http}
"""
DRIVE = """
    deploy: {distribute: http}
    nodes:
      - id: listener
        path: listener/listener.py
        inputs: {tick: dora/timer/millis/50}
"""
FLEET = """
    dataflows:
      drive: {file: drive.yml, machines: [robot]}
"""
CLUSTER = """
    coordinator: {addr: 127.0.0.1, port: 9}
    machines:
      - {id: robot, host: 127.0.0.1, port: 9}
"""
FILES = {"flow": FLOW, "added": ADDED, "drive": DRIVE, "fleet": FLEET, "cluster": CLUSTER}

REFUSED = """
    run flow.yml
    record flow.yml
    self test
    up
"""
"""Commands that would start nodes here."""
LOCAL = """
    validate flow.yml
    validate flow.yml --strict-types
    graph flow.yml --mermaid
    expand flow.yml
    schema cluster
    new project
    test --help
    completion zsh
    help start
    self update
    self uninstall
    self wheels wheels --for nonsense -> 1
    build flow.yml
    why --local -> 1
    logs --local -> 1
    doctor cluster.yml -> 1
    recording info none.mcap -> 1
    recording export none.mcap -> 1
    recording import none.mcap --from rosbag -> 1
    cluster up cluster.yml -> 1
    cluster status cluster.yml -> 1
    cluster down cluster.yml -> 1
    cluster install cluster.yml -> 1
    cluster uninstall cluster.yml -> 1
    cluster remove cluster.yml robot -> 1
    cluster exec cluster.yml true -> 1
    cluster logs cluster.yml -> 1
    cluster upgrade cluster.yml -> 1
    cluster downgrade cluster.yml -> 1
    cluster promote robot --file cluster.yml --yes -> 1
"""
"""Commands with their exit codes, by default 0; without a coordinator."""
REMOTE = """
    status
    doctor
    start flow.yml --name a --debug --detach
    list
    status --dataflow flow.yml
    top --once
    why a
    logs a listener --tail 1
    node list
    node info listener
    node add --from-yaml added.yml
    node disconnect talker/count added/count
    node connect talker/count added/count
    node hold added testing
    node release added
    node replace added --from-yaml added.yml
    node restart added
    node remove added
    topic list
    topic info talker/count --duration 1
    topic pub talker/count 1
    topic echo talker/count --count 1
    topic hz talker/count --duration 1
    param list listener
    param set listener speed 2
    param get listener speed
    param delete listener speed
    record --attach a --cluster --max-duration 500ms
    recording list
    recording stop a
    recording fetch a -o fetched.mcap
    recording info fetched.mcap
    recording export fetched.mcap
    recording remove a
    restart a
    node stop listener
    stop a
    logs a listener
    why a --archive a.zip
    clean
    start flow.yml --dry-run
    build flow.yml --coordinator-addr 127.0.0.1
    cluster status
    cluster diff fleet.yml -> 2
    cluster apply fleet.yml --yes
    cluster history fleet.yml
    cluster pause fleet.yml
    cluster resume fleet.yml
    cluster rollback fleet.yml -> 1
    cluster machine-token
    cluster ca
    cluster rotate-token
"""


REPLAYS = """
    replay fetched.mcap
    replay fetched.mcap --check --run talker
"""
"""Commands that would start the nodes of a recording here."""
ROS2 = """
    ros2 echo /chatter --count 1
    ros2 topics --json
    ros2 nodes
    ros2 services
    ros2 actions
    ros2 type std_msgs/msg/String
    ros2 hz /chatter --count 1
    ros2 pub /chatter std_msgs/msg/String {"data":"once"} --rate 9 --count 1
    ros2 call /none {} --timeout 1 -> 1
    ros2 send-goal /none {} --timeout 1 -> 1
    ros2 param /none --timeout 1 -> 1
    ros2 check --seconds 1
"""
"""Commands beside a router and a publisher of /chatter."""


def steps(text: str) -> Iterator[tuple[str, int]]:
    """Yield each command line with its exit code."""
    for line in text.split("\n"):
        words, _, code = line.strip().partition(" -> ")
        if words:
            yield words, int(code or 0)


class Mac:
    """A process that runs commands of an installation on macOS."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self.commands: list[str] = self._next()
        """The words of each installed command, such as "node list"."""
        self.used = set[str]()

    def dora(self, line: str, code: int = 0) -> str:
        """Run a command; return its output."""
        self.used.update(one for one in self.commands if f"{line} ".startswith(f"{one} "))
        self._input.write(json.dumps(line.split()) + "\n")
        self._input.flush()
        ended, printed = self._next()
        assert "Traceback" not in printed, f"dora {line}\n{printed}"
        assert ended == code, f"dora {line}: exit code {ended}\n{printed}"
        return str(printed)

    def _next(self) -> Any:
        return json.loads(self._output.readline())


@contextmanager
def mac(folder: Path, port: str) -> Iterator[Mac]:
    """Run commands in ``folder``, with a coordinator at this port."""
    environ = {**os.environ, **MAC, "DORA_COORDINATOR_PORT": port}
    words = [sys.executable, "-P", str(SUPPORT / "commands.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, cwd=folder, env=environ, stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            yield Mac(process)
        finally:
            process.kill()


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    """A folder with the files of the commands."""
    for node, text in (("talker", TALKER), ("listener", LISTENER)):
        workspace.node(f"{node}/{node}.py", text)
    for name, text in FILES.items():
        workspace.dataflow(text, f"{name}.yml")
    return workspace.path


def test_all_commands(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    machine = tmp_path_factory.mktemp("robot")
    used = set[str]()
    with mac(folder, "9") as laptop:
        for line, _ in steps(REFUSED):
            assert NEEDS_LINUX in laptop.dora(line, 1)
        for line, code in steps(LOCAL):
            laptop.dora(line, code)
        used |= laptop.used
    with ExitStack() as stack:
        coordinator = stack.enter_context(running_dora("coordinator", "--port", "0", env=MAC))
        coordinator.wait_for("Listening on port")
        port = coordinator.stdout.split("Listening on port ")[1].split()[0]
        words = ("daemon", "--machine-id", "robot", "--coordinator-port", port)
        daemon = stack.enter_context(running_dora(*words, cwd=machine))
        daemon.wait_for("connected to the coordinator")
        laptop = stack.enter_context(mac(folder, port))
        for line, code in steps(REMOTE):
            laptop.dora(line, code)
        for line, _ in steps(REPLAYS):
            assert NEEDS_LINUX in laptop.dora(line, 1)
        page = running_dora("ui", "--no-browser", "--coordinator-port", port, env=MAC)
        with page as ui:
            ui.wait_for("http://")
            ui.interrupt()
            ui.wait()
        laptop.dora("down --force")
        daemon.wait()
        coordinator.wait()
        missing = set(laptop.commands) - used - laptop.used - {"coordinator", "daemon", "ui"}
        assert not {one for one in missing if not one.startswith("ros2 ")}


def test_ros2_over_zenoh(folder: Path) -> None:
    address = f"tcp/127.0.0.1:{free_port()}"
    message = ("/chatter", "std_msgs/msg/String", '{"data": "hello"}', "--rate", "20")
    router = running_dora("ros2", "router", "--listen", address, env=MAC)
    publisher = running_dora("ros2", "pub", *message, "--router", address, env=MAC)
    with router as routing, mac(folder, "9") as laptop:
        routing.wait_for("the router listens")
        with publisher as publishing:
            shown = [laptop.dora(f"{line} --router {address}", code) for line, code in steps(ROS2)]
            publishing.interrupt()
            publishing.wait()
        routing.interrupt()
        routing.wait()
    assert '{"data": "hello"}' in shown[0]
    assert '"topic": "/chatter"' in shown[1]
    missing = set(laptop.commands) - laptop.used - {"ros2 router"}
    assert not {one for one in missing if one.startswith("ros2 ")}


def test_tests_with_real_nodes_are_refused(folder: Path) -> None:
    (folder / "test_flow.py").write_text("def test(dora_flow):\n    dora_flow('flow.yml').run()\n")
    # without capturing, for which Python on Linux uses what macOS lacks
    assert NEEDS_LINUX in run_dora("test", "-s", cwd=folder, env=MAC).exited(1).stdout


def test_daemon_is_refused() -> None:
    assert NEEDS_LINUX in run_dora("daemon", env=MAC).exited(1).stderr
