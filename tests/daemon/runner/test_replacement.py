"""Replacement of a node under load, and kills during it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.runner.runs import BackgroundRun, background, gone, is_running
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

from dora_config.dataflow.loader import load_dataflow
from dora_config.protocol import runner as protocol
from dora_node_api.protocol.control_socket import connect_unix

pytestmark = pytest.mark.integration

SOURCE = """
    from dora import Node
    node = Node()
    number = 0
    for event in node:
        for _ in range(5):
            node.send_output("number", number.to_bytes(8, "little"))
            number += 1
"""
"""Sends 500 messages a second."""

MIDDLE = """
    import os, time
    from pathlib import Path
    from dora import Node
    with Path("pids").open("a") as file:
        print(os.getpid(), file=file)
    while Path("hold").exists():
        time.sleep(0.01)
    node = Node()
    state = node.load_state()
    total = 0 if state is None else int(state)
    for event in node:
        if event["type"] == "INPUT":
            total += 1
            node.send_output("number", event["value"])
    while Path("stubborn").exists():
        time.sleep(0.01)
    Path("total").write_text(str(total))
    node.save_state(str(total).encode())
"""
"""Forwards and counts; waits before it connects and before it ends while a file exists."""

SINK = """
    import time
    from pathlib import Path
    from dora import Node
    with Path("got").open("a") as file:
        for event in Node():
            while Path("full").exists():
                time.sleep(0.01)
            if event["type"] == "INPUT" and event["id"] == "number":
                number = int.from_bytes(bytes(event["value"].to_pylist()), "little")
                print(number, file=file, flush=True)
"""


def _waiting(source: str) -> dict[str, str]:
    return {"source": source, "queue_policy": "backpressure"}


FLOW: dict[str, Any] = {
    "nodes": [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": "dora/timer/millis/10"},
            "outputs": ["number"],
        },
        {
            "id": "middle",
            "path": "middle.py",
            "inputs": {"number": _waiting("source/number")},
            "outputs": ["number"],
        },
        {
            "id": "sink",
            "path": "sink.py",
            # does not end with its source
            "inputs": {"number": _waiting("middle/number"), "tick": "dora/timer/secs/10"},
        },
    ]
}


class PendingRequest:
    """A request on a connection of its own, whose answer is read later."""

    def __init__(self, run: BackgroundRun, request: protocol.RunnerRequest) -> None:
        self._socket = connect_unix(run.path / "c", timeout=PATIENCE)
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(protocol.request_line(1, request))

    def reply(self) -> protocol.RunnerReply:
        with self._socket.makefile("rb") as lines:
            message = protocol.decode_line(lines.readline())
        assert isinstance(message, protocol.Envelope)
        assert message.reply is not None
        self.close()
        return message.reply

    def refusal(self) -> str:
        reply = self.reply()
        assert isinstance(reply, protocol.Refusal), reply
        return reply.message

    def close(self) -> None:
        self._socket.close()


class Replacing:
    """The dataflow while it runs, and what its nodes have written."""

    def __init__(self, run: BackgroundRun, workspace: Workspace) -> None:
        self.run = run
        self.workspace = workspace
        self.before_stop: list[int] = []
        self._spec = load_dataflow(workspace.path / "dataflow.yml").resolved.node("middle")

    def replace(self) -> PendingRequest:
        return PendingRequest(self.run, protocol.ReplaceNode(node=self._spec, grace=5.0))

    def pids(self) -> list[int]:
        """Return the processes of the middle node, oldest first."""
        return [int(line) for line in (self.workspace.path / "pids").read_text().split()]

    def new_pid(self, count: int) -> int:
        """Wait for a process and return it."""
        wait_until(lambda: len(self.pids()) >= count, what=f"process {count}")
        return self.pids()[count - 1]

    def got(self) -> list[int]:
        path = self.workspace.path / "got"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def flows_on(self) -> None:
        """Wait for further messages at the sink."""
        before = len(self.got())
        wait_until(lambda: len(self.got()) > before + 20, what="further messages")

    def complete(self, *, lost: int | None = 0) -> None:
        """Require that at most ``lost`` messages (None: any number) are missing, none twice.

        The stop lets a source that waits for room drop its message.
        """
        got = self.got()
        assert got == sorted(set(got))
        missing = sorted(set(range(self.before_stop[-1] + 1)) - set(got))
        assert lost is None or len(missing) <= lost, missing

    def hold(self, name: str = "hold") -> None:
        self.workspace.file(name, "")

    def release(self, name: str = "hold") -> None:
        (self.workspace.path / name).unlink()

    def wait_until_blocked(self) -> None:
        """Wait until the middle node waits for room to send."""

        def blocked() -> bool:
            edges = self.run.request(protocol.GetStatistics()).edges
            return any(edge.blocked for edge in edges if edge.source == "middle/number")

        wait_until(blocked, what="a full queue")

    def state(self) -> str:
        return next(n.status for n in self.run.status().nodes if n.node == "middle")


@contextmanager
def replacing(workspace: Workspace) -> Iterator[Replacing]:
    for name, text in (("source", SOURCE), ("middle", MIDDLE), ("sink", SINK)):
        workspace.node(name, text)
    with background(workspace, FLOW) as run:
        run.wait_for_phase("running")
        flow = Replacing(run, workspace)
        flow.flows_on()
        yield flow
        flow.before_stop = flow.got()
        run.request(protocol.StopAllNodes(grace=2.0))
        run.wait_for_phase("finished")
        run.request(protocol.AcknowledgeResult())
        gone(run.pid())


def test_no_message_is_lost_or_comes_twice(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        for count in (2, 3, 4):
            assert isinstance(flow.replace().reply(), protocol.Done)
            assert flow.state() == "Running"
            assert [is_running(pid) for pid in flow.pids()] == [False] * (count - 1) + [True]
            flow.flows_on()
        assert flow.run.status().state.revision == 3
    flow.complete()
    # each process has continued the count of the one before
    assert int((workspace.path / "total").read_text()) >= len(flow.got())


def test_a_killed_replacement_leaves_the_old_process(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold()
        request = flow.replace()
        os.kill(flow.new_pid(2), signal.SIGKILL)
        assert "exited before connecting" in request.refusal()
        flow.flows_on()
        assert is_running(flow.pids()[0])
        assert flow.run.status().state.revision == 0
        flow.release()
    flow.complete()


def test_the_old_process_is_killed_while_the_new_one_starts(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold()
        request = flow.replace()
        flow.new_pid(2)
        os.kill(flow.pids()[0], signal.SIGKILL)
        wait_until(lambda: flow.state() == "Restarting", what="the end of the old process")
        flow.release()
        assert isinstance(request.reply(), protocol.Done)
        flow.flows_on()
    flow.complete(lost=1)  # the one in the hands of the killed process


def test_both_are_killed_while_the_new_one_starts(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold()
        request = flow.replace()
        new = flow.new_pid(2)
        os.kill(flow.pids()[0], signal.SIGKILL)
        wait_until(lambda: flow.state() == "Restarting", what="the end of the old process")
        os.kill(new, signal.SIGKILL)
        assert "exited before connecting" in request.refusal()
        wait_until(lambda: flow.state() == "Failed", what="the failure by its restart policy")
        flow.release()
    flow.complete(lost=1)


def test_both_are_killed_while_the_old_process_stops(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold("stubborn")
        request = flow.replace()
        new = flow.new_pid(2)
        wait_until(lambda: flow.state() == "Stopping", what="the stop of the old process")
        os.kill(new, signal.SIGKILL)
        # reaped: a zombie may still have threads that end, and a parent cannot wait for it yet
        wait_until(lambda: not Path(f"/proc/{new}").exists(), what="the end of the new process")
        os.kill(flow.pids()[0], signal.SIGKILL)
        assert "before it was replaced" in request.refusal()
        flow.new_pid(3)  # the former program is started again
        flow.flows_on()
        flow.release("stubborn")
    flow.complete(lost=1)


def test_a_send_that_waits_for_room_outlasts_a_replacement(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold("full")
        flow.wait_until_blocked()
        request = flow.replace()
        wait_until(lambda: flow.state() == "Stopping", what="the stop of the old process")
        flow.release("full")
        assert isinstance(request.reply(), protocol.Done)
        flow.flows_on()
    flow.complete()


def test_the_requester_hangs_up(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold()
        request = flow.replace()
        new = flow.new_pid(2)
        request.close()  # as when the daemon is killed: nothing was stopped yet
        gone(new)
        flow.release()
        flow.flows_on()
        flow.hold("stubborn")
        request = flow.replace()
        wait_until(lambda: flow.state() == "Stopping", what="the stop of the old process")
        request.close()  # now the replacement is completed
        flow.release("stubborn")
        wait_until(lambda: flow.run.status().state.revision == 1, what="the replacement")
        flow.flows_on()
        assert is_running(flow.pids()[2])
    flow.complete()


def test_the_runner_is_killed_during_a_replacement(workspace: Workspace) -> None:
    for name, text in (("source", SOURCE), ("middle", MIDDLE), ("sink", SINK)):
        workspace.node(name, text)
    with background(workspace, FLOW) as run:
        run.wait_for_phase("running")
        flow = Replacing(run, workspace)
        flow.flows_on()
        flow.hold()
        request = flow.replace()
        flow.new_pid(2)
        os.kill(run.pid(), signal.SIGKILL)
        gone(*flow.pids())
        request.close()


def test_a_node_is_removed_while_its_replacement_starts(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold()
        request = flow.replace()
        new = flow.new_pid(2)
        removed = flow.run.request(protocol.RemoveNode(node="middle", grace=2.0))
        assert isinstance(removed, protocol.Done)
        assert "was removed" in request.refusal()
        gone(new)


def test_a_node_that_has_failed_is_started_with_its_new_program(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        os.kill(flow.pids()[0], signal.SIGKILL)
        wait_until(lambda: flow.state() == "Failed", what="the failure")
        assert isinstance(flow.replace().reply(), protocol.Done)
        flow.flows_on()
    # messages for a node that has ended are not kept
    flow.complete(lost=None)


def test_the_dataflow_is_stopped_during_a_replacement(workspace: Workspace) -> None:
    with replacing(workspace) as flow:
        flow.hold("stubborn")
        request = flow.replace()
        wait_until(lambda: flow.state() == "Stopping", what="the stop of the old process")
        flow.run.request(protocol.StopAllNodes(grace=5.0))
        flow.release("stubborn")
        assert "was stopped" in request.refusal()
    gone(*flow.pids())
