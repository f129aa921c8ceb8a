"""Real runs: in this process, in a foreground child, and started by a daemon."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from support.fork_server import Process, start
from support.runner import log_files
from support.runner.found_runners import list_runners
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

from dora_config.dataflow.loader import load_dataflow
from dora_config.protocol import runner as protocol
from dora_config.protocol.runner import DataflowResult, RunnerEvent, RunPlan
from dora_config.protocol.runner_events import LogLine, RunOutput
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root, sweep
from dora_daemon.runner.foreground import run as run_foreground
from dora_node_api.protocol.control_socket import connect_unix
from dora_node_api.protocol.runner_index import read_entry

T = TypeVar("T")

TALKER = """
    import sys
    from dora import Node
    node = Node()
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        node.send_output("number", bytes([number]))
"""
"""Sends some numbers and ends."""

LISTENER = """
    from dora import Node
    for event in Node():
        value = event["value"].to_pylist() if event["type"] == "INPUT" else ""
        print(event["type"], event.get("id", ""), value, flush=True)
"""
"""Prints every event."""

SLEEPER = """
    import time
    from dora import Node
    node = Node()
    print("up", flush=True)
    while True:
        time.sleep(0.05)
"""
"""Ignores every event."""


def make_plan(workspace: Workspace, content: str | Mapping[str, Any], **fields: Any) -> RunPlan:
    """Write a dataflow file into the workspace and return its plan."""
    path = workspace.dataflow(content)
    loaded = load_dataflow(path)
    return RunPlan(
        dataflow_id=str(uuid.uuid4()),
        resolved=loaded.resolved,
        descriptor=loaded.descriptor_dict,
        working_dir=str(path.parent),
        **fields,
    )


@dataclass
class Ran:
    """Reports and result of a run."""

    plan: RunPlan
    events: list[RunOutput] = field(default_factory=list)
    result: DataflowResult | None = None

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def lines(self, node: str | None) -> list[str]:
        """Return the log messages of a node (``None``: the runner)."""
        return [line.message for line in self.of(LogLine) if line.node == node]

    def outcome(self, node: str) -> str:
        """ "success", or "failed: MESSAGE" and the like."""
        assert self.result is not None
        found = next(r for r in self.result.nodes if r.node == node)
        return found.outcome if not found.message else f"{found.outcome}: {found.message}"

    def log_file(self, node: str) -> list[dict[str, Any]]:
        """Return the entries of a node's log file."""
        path = Path(self.plan.working_dir, "out", self.plan.dataflow_id, f"log_{node}.jsonl")
        return log_files.entries(path)


def run_flow(workspace: Workspace, content: str | Mapping[str, Any], **fields: Any) -> Ran:
    """Run a dataflow to its end in this process."""
    ran = Ran(make_plan(workspace, content, **fields))
    ran.result = run_foreground(ran.plan, on_event=ran.events.append)
    return ran


# The plan comes on stdin, events go out as lines of JSON.
_FOREGROUND = """
import sys
from dora_config.protocol.runner import RunPlan
from dora_daemon.runner.foreground import run as run_foreground
from dora_daemon.process_tree.runtime_dir import runtime_root
from dora_node_api.protocol.runner_index import read_entry
from dora_node_api.protocol.control_socket import connect_unix
plan = RunPlan.model_validate_json(sys.stdin.buffer.read())
write = lambda event: print(event.model_dump_json(), flush=True)
sys.exit(0 if run_foreground(plan, on_event=write).ok else 1)
"""


class ForegroundRun:
    """A runner in the foreground of a child process."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, plan: RunPlan) -> None:
        self.process = process
        self.plan = plan
        self._out = out

    def events(self) -> list[dict[str, Any]]:
        """Return the reports so far."""
        *complete, _ = self._out.read_text().split("\n")
        return [json.loads(line) for line in complete if line.startswith("{")]

    def wait_for(self, kind: str, *, timeout: float = PATIENCE, **values: Any) -> dict[str, Any]:
        """Wait for an event of a kind with these values and return it."""

        def found() -> dict[str, Any] | None:
            for event in self.events():
                if event["kind"] == kind and all(event.get(k) == v for k, v in values.items()):
                    return event
            assert self.process.poll() is None or kind == "dataflow_finished", self._out.read_text()
            return None

        event = wait_until(found, timeout=timeout, what=lambda: f"{kind} {values}: {self.text()}")
        assert event is not None
        return event

    def text(self) -> str:
        return self._out.read_text()

    def pid_of(self, node: str) -> int:
        """Return the pid of the node's last process."""
        pids = [
            e["pid"] for e in self.events() if e["kind"] == "node_spawned" and e["node"] == node
        ]
        return int(pids[-1])

    def wait(self, timeout: float = PATIENCE) -> int:
        return self.process.wait(timeout)


@contextmanager
def foreground(
    workspace: Workspace, content: str | Mapping[str, Any], **fields: Any
) -> Iterator[ForegroundRun]:
    """Start a dataflow in the foreground of a child process; killed when the block is left."""
    plan = make_plan(workspace, content, **fields)
    source = workspace.file("plan.json", plan.model_dump_json())
    out = workspace.path / "events.jsonl"
    with source.open("rb") as stdin, out.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-c", _FOREGROUND],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield ForegroundRun(process, out, plan)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        # a runner killed before it had a reaper leaves its directory to the next start
        sweep(runtime_root())
        reapers_done()


def reapers_done() -> None:
    """Wait until the reapers of runners that ended have cleaned up."""

    def left() -> list[str]:
        known = {f.path.name for f in list_runners(runtime_root()) if f.alive or f.has_result}
        root = runtime_root()
        names = {p.name for p in root.iterdir()} if root.exists() else set()
        return sorted(names - known - {".lock"})

    wait_until(lambda: not left(), what=lambda: f"reapers: {left()}")


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone(*pids: int, timeout: float = PATIENCE) -> None:
    """Wait until none of these processes runs."""
    wait_until(
        lambda: not any(is_running(pid) for pid in pids),
        timeout=timeout,
        what=lambda: f"the end of {[pid for pid in pids if is_running(pid)]}",
    )


def start_runner(plan: RunPlan) -> tuple[Path, Process]:
    """Start a runner, which inherits the lock of its directory; return that and the process."""
    directory = RuntimeDir.create(runtime_root())
    directory.write("plan.json", plan.model_dump_json())
    lock = directory.lock_descriptor
    with (directory.path / "runner.log").open("ab") as log, open(os.devnull, "rb") as nothing:
        streams = (nothing.fileno(), log.fileno(), log.fileno())
        words = [str(directory.path), str(lock)]
        process = start(words, streams, module="dora_daemon.runner", passed=[lock])
    os.close(lock)
    return directory.path, process


class BackgroundRun:
    """A runner of a daemon, with a connection to its control socket."""

    def __init__(self, path: Path, plan: RunPlan) -> None:
        self.path = path
        self.plan = plan
        self.notices: list[RunnerEvent] = []
        self._socket: socket.socket | None = None
        self._rest = b""
        self._numbers = 0
        self._pid = 0
        # kept open, because the file is removed with the directory
        self._log = os.open(path / "runner.log", os.O_RDONLY)

    def pid(self) -> int:
        """Return the pid of the runner."""
        entry = read_entry(self.path)
        if entry is not None:
            self._pid = entry.pid
        return self._pid

    def request(self, request: protocol.RunnerRequest, timeout: float = PATIENCE) -> Any:
        """Return the reply to a request; keep notices that arrive meanwhile."""
        sock = self._connected(timeout)
        self._numbers += 1
        try:
            sock.sendall(protocol.request_line(self._numbers, request))
            reply = self._reply(sock)
        except ConnectionError as error:
            # its log has the cause once it has ended
            gone(self.pid())
            raise AssertionError(f"the runner has ended ({error}):\n{self.log()}") from None
        if isinstance(request, protocol.AcknowledgeResult) and isinstance(reply, protocol.Done):
            sock.close()  # the runner waits for this
            self._socket = None
        return reply

    def _reply(self, sock: socket.socket) -> Any:
        while True:
            data = sock.recv(65536)
            if not data:
                raise ConnectionError("closed")
            reply = None
            *lines, self._rest = (self._rest + data).split(b"\n")
            for message in map(protocol.decode_line, lines):
                assert isinstance(message, protocol.Envelope), message
                if message.notice is not None:
                    self.notices.append(message.notice)
                elif message.id == self._numbers:
                    reply = message.reply
            if reply is not None:
                return reply

    def _connected(self, timeout: float = PATIENCE) -> socket.socket:
        if self._socket is None:
            path = self.path / "c"

            def connected() -> socket.socket | None:
                # the file exists a moment before the socket listens
                with suppress(OSError):
                    return connect_unix(path, timeout=timeout)
                return None

            what = f"a connection to {path}"
            self._socket = wait_until(
                connected, timeout=timeout, what=lambda: f"{what}: {self.log()}"
            )
            assert self._socket is not None
            self._socket.settimeout(timeout)
        return self._socket

    def status(self) -> protocol.RunnerStatus:
        reply = self.request(protocol.GetStatus())
        assert isinstance(reply, protocol.RunnerStatus), reply
        return reply

    def wait_for_phase(self, phase: str) -> protocol.RunnerStatus:
        """Wait for a phase and return the status."""

        def reached() -> protocol.RunnerStatus | None:
            status = self.status()
            return status if status.state.phase == phase else None

        status = wait_until(reached, what=lambda: f"{phase}: {self.log()}")
        assert status is not None
        return status

    def wait_for_state(self, node: str, state: str) -> protocol.NodeStatus:
        """Wait for a state of a node and return its status."""

        def reached() -> protocol.NodeStatus | None:
            return next(
                (n for n in self.status().nodes if n.node == node and n.status == state), None
            )

        found = wait_until(reached, what=lambda: f"{node} {state}: {self.status()}")
        assert found is not None
        return found

    def log(self) -> str:
        """Return the output of the runner's process."""
        try:
            return os.pread(self._log, 1 << 20, 0).decode()
        except OSError as error:
            return f"(no log: {error})"

    def drop_connection(self) -> None:
        """Disconnect like a daemon that ends; the next request connects again."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._rest = b""

    def close(self) -> None:
        os.close(self._log)
        self.drop_connection()


@contextmanager
def background(
    workspace: Workspace, content: str | Mapping[str, Any], **fields: Any
) -> Iterator[BackgroundRun]:
    """Start a runner the way a daemon does; killed when the block is left, if it still runs."""
    with background_plan(workspace, make_plan(workspace, content, **fields)) as run:
        yield run


@contextmanager
def background_plan(workspace: Workspace, plan: RunPlan) -> Iterator[BackgroundRun]:
    """Start a runner with this plan."""
    path, process = start_runner(plan)
    run = BackgroundRun(path, plan)
    run.pid()
    try:
        yield run
    finally:
        run.close()
        if process.poll() is None and read_entry(path) is not None:
            process.kill()
        process.wait(PATIENCE)
        reapers_done()


def open_descriptors() -> int:
    """Return the number of open descriptors of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))
