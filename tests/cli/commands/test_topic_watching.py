"""`dora topic echo` and `hz` on two machines, also when processes are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.dora import DORA, RunningDora, running_dora
from support.fleets.daemons import RealFleet, real_fleet
from support.runner.found_runners import list_runners
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

from dora_daemon.process_tree.runtime_dir import runtime_root

pytestmark = pytest.mark.integration

SENDER = """
    import os
    import pyarrow as pa
    from dora import Node

    node = Node()
    count = 0
    for event in node:
        if event["type"] == "INPUT":
            for _ in range(int(os.environ["AT_ONCE"])):
                node.send_output("count", pa.array([count, os.getpid()]), {"unit": "one" * 99})
                count += 1
"""


def senders(workspace: Workspace, *enabled: str) -> Path:
    """`left` sends 50 messages a second on the robot, `right` 2,500 on the gpu."""
    workspace.node("sender", SENDER)
    nodes = [
        {
            "id": name,
            "path": "sender.py",
            "inputs": {"tick": "dora/timer/millis/20"},
            "outputs": ["count"],
            "env": {"AT_ONCE": at_once},
            "deploy": {"machine": machine},
        }
        for name, machine, at_once in (("left", "robot", 1), ("right", "gpu", 50))
        if name in enabled
    ]
    return workspace.dataflow({"nodes": nodes})


def inspectors() -> list[int]:
    """Pids of the inspectors of this test."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"dora_daemon.inspection.inspector" in words and str(
            runtime_root()
        ).encode() in b"".join(words):
            found.append(int(name))
    return found


def open_files() -> dict[int, int]:
    """Number of open descriptors of each runner."""
    alive = [one.entry.pid for one in list_runners(runtime_root()) if one.alive]
    return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in alive}


def watching(fleet: RealFleet, *words: str) -> RunningDora:
    """`dora topic echo` in JSON that has printed messages."""
    port = ("--coordinator-port", str(fleet.port))
    running = fleet.stack.enter_context(
        running_dora("topic", "echo", *words, "--format", "json", *port, cwd=fleet.workspace.path)
    )
    wait_until(lambda: running.stdout, what="the first message")
    return running


def messages(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def sees(watch: RunningDora, matches: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until a message matches."""
    wait_until(
        lambda: any(matches(m) for m in messages(watch.stdout[: watch.stdout.rfind("\n") + 1])),
        what=lambda: f"a message; standard error: {watch.stderr}",
    )


def rates(fleet: RealFleet) -> dict[str, dict[str, Any]]:
    """Output of `dora topic hz`, by topic, once it has messages of both."""
    port = ("--coordinator-port", str(fleet.port))
    with running_dora("topic", "hz", "-f", "json", *port, cwd=fleet.workspace.path) as running:
        found: dict[str, dict[str, Any]] = {}

        def seen() -> bool:
            whole = running.stdout[: running.stdout.rfind("\n") + 1]
            found.update((rate["name"], rate) for rate in messages(whole))
            return len(found) == 2 and all(rate["messages"] > 20 for rate in found.values())

        wait_until(seen, what=lambda: f"messages of both; standard error: {running.stderr}")
        running.interrupt()
        running.wait().exited(0)
        return found


def test_outputs_of_all_machines_are_shown_and_measured(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot", "gpu") as fleet:
        fleet.start(senders(workspace, "left", "right"), "--name", "a", "--debug")
        both = watching(fleet)
        for name in ("left/count", "right/count"):
            sees(both, lambda m, name=name: m["name"] == name)  # type: ignore[misc]
        both.interrupt()
        shown = messages(both.wait().exited(0).stdout)
        left = [m for m in shown if m["name"] == "left/count"]
        assert {m["name"] for m in shown} == {"left/count", "right/count"}
        assert left[0].keys() == {"timestamp", "name", "data", "metadata"}
        assert left[0]["metadata"] == {"unit": "one" * 99}
        counted = messages(fleet.dora("topic", "echo", "--count", "50", "--format", "json").stdout)
        assert len(counted) == 50
        by_name = rates(fleet)
        assert by_name["left/count"]["min_ms"] <= by_name["left/count"]["avg_ms"]
        assert by_name["right/count"]["messages"] > by_name["left/count"]["messages"]
        fleet.dora("topic", "hz", "left/count", "--duration", "10ms")
        unknown = fleet.dora("topic", "echo", "left/cuont", code=1).stderr
        assert "did you mean left/count" in unknown

        wait_until(lambda: not inspectors(), what="the inspectors to end")
        before = open_files()
        watch = watching(fleet, "left/count")
        first = messages(watch.stdout)[0]["data"][1]
        fleet.dora("node", "restart", "left")
        sees(watch, lambda m: m["data"][1] != first)
        slow = fleet.stack.enter_context(_stopped_reader(fleet))
        wait_until(lambda: len(inspectors()) == 2, what="a second inspector")
        watch.send_signal(signal.SIGKILL)  # closes its connection without a message
        wait_until(lambda: len(inspectors()) == 1, what="its inspector to end")
        _, remarks = slow.communicate(timeout=PATIENCE)
        assert "of right/count (messages arrive faster than they can be shown)" in remarks.decode()
        wait_until(lambda: not inspectors(), what="the last inspector to end")
        wait_until(lambda: open_files() == before, what="the runners to have closed all queues")
        watch = watching(fleet)
        fleet.dora("stop", "a")
        assert "the dataflow has ended" in watch.wait().exited(0).stderr


def _stopped_reader(fleet: RealFleet) -> subprocess.Popen[bytes]:
    """A watch whose terminal has stopped."""
    words = ("topic", "echo", "right/count", "--format", "json", "--duration", "4s")
    return subprocess.Popen(
        [str(DORA), *words, "--coordinator-port", str(fleet.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_watch_outlives_runner_and_daemon(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot") as fleet:
        fleet.start(senders(workspace, "left"), "--name", "a", "--debug")
        watch = watching(fleet, "left/count")
        first = messages(watch.stdout)[0]["data"][1]
        os.kill(fleet.runner_pid(), signal.SIGKILL)
        sees(watch, lambda m: m["data"][1] != first)
        fleet.daemons["robot"].kill()
        wait_until(lambda: "was lost" in watch.stderr, what="the loss to be reported")
        wait_until(lambda: not inspectors(), what="the daemon's inspector to end")
        fleet.start_daemon("robot")
        (again,) = wait_until(inspectors, what="another inspector")
        seen = len(watch.stdout)
        wait_until(lambda: len(watch.stdout) > seen, what="messages after the daemon's return")
        os.kill(again, signal.SIGKILL)
        ended = watch.wait().exited(1).stderr
        assert "its inspector ended unexpectedly" in ended
        watch = watching(fleet, "left/count")
        fleet.coordinator.process.kill()
        assert "lost the connection" in watch.wait().exited(1).stderr
        wait_until(lambda: not inspectors(), what="the inspector to end with the coordinator")
