"""A runner as a process of its own: control socket, result on disk until it is acknowledged."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from dora_config import DoraError
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import LogSource
from dora_config.protocol import runner as protocol
from dora_daemon.process_tree.reaper import RESULT
from dora_daemon.process_tree.runner_index import CONTROL_SOCKET
from dora_daemon.process_tree.runtime_dir import PLAN, RuntimeDir
from dora_daemon.runner.control.requests import Requests
from dora_daemon.runner.control.server import ControlServer
from dora_daemon.runner.foreground import signals_stop
from dora_daemon.runner.machine.events import StopRequested
from dora_daemon.runner.service import Runner

LINGER_SECONDS = 30.0
"""How long the process waits for its result to be acknowledged on the socket."""


class Background:
    """The runner, its control socket, and the wait for the acknowledgement."""

    def __init__(self, plan: protocol.RunPlan, directory: RuntimeDir) -> None:
        self._directory = directory
        self._plan = plan
        self.runner = Runner(
            plan,
            directory,
            on_event=self._put_event,
            keep_result=self._keep_result,
            foreground=False,
        )
        self.requests = Requests(self.runner)
        self.acknowledged = False
        self._server: ControlServer | None = None
        self._done: anyio.Event
        self._failed_to_prepare = False

    def _put_event(self, event: protocol.RunnerEvent) -> None:
        if self._server is not None:
            self._server.put_event(event)
        if isinstance(event, protocol.LogLine) and event.node is None:
            print(f"{event.ts} {event.level} {event.message}", file=sys.stderr, flush=True)

    async def answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply:
        """What concerns the process itself; the rest is for Requests."""
        match request:
            case protocol.FollowEvents():
                return protocol.Done()
            case protocol.AcknowledgeResult():
                if self.runner.result is None:
                    return protocol.Refusal(message="the dataflow has not ended yet")
                self._acknowledge()
                return protocol.Done()
            case protocol.ShutDown(grace=grace):
                self._acknowledge()
                if self.runner.result is None:
                    stop = StopRequested(
                        "the runner was told to end",
                        grace=grace,
                        force=grace is None,
                        comes_back=True,
                    )
                    self.runner.tell(stop)
                return protocol.Done()
            case protocol.GetStatus() if self._failed_to_prepare:
                return protocol.RunnerStatus(
                    dataflow_id=self._plan.dataflow_id,
                    name=self._plan.name,
                    phase="finished",
                    result=self.runner.result,
                )
            case _ if self._failed_to_prepare and not isinstance(request, protocol.Handshake):
                return protocol.Refusal(message="the dataflow could not be prepared")
        return await self.requests.answer(request)

    def _keep_result(self, result: protocol.DataflowResult) -> None:
        """Before anybody hears of the end: we may be killed right after that."""
        if not self.acknowledged:
            _write_result(self._directory, result)

    def _acknowledge(self) -> None:
        self.acknowledged = True
        # At once: if we are killed on the way out, nothing is to be kept.
        self._directory.forget_result()
        self._done.set()

    async def run(self) -> None:
        """From the spawning of nodes to the acknowledged (or lingering) result."""
        self._done = anyio.Event()
        self.runner.lines_shed = self._lines_shed
        try:
            self._server = ControlServer(self._directory.path / CONTROL_SOCKET, self.answer)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._server.serve)
                await self._run_dataflow(tasks)
                tasks.cancel_scope.cancel()
        finally:
            self.runner.close()

    async def _run_dataflow(self, tasks: TaskGroup) -> None:
        with signals_stop(self.runner):
            try:
                self.runner.prepare()
                await self.runner.run(after_start=self._import_the_rest)
            except DoraError as error:
                self._failed_to_prepare = True
                self.runner.result = protocol.DataflowResult(
                    dataflow_id=self._plan.dataflow_id, name=self._plan.name, error=str(error)
                )
                self._keep_result(self.runner.result)
                self._put_event(protocol.DataflowFinished(result=self.runner.result))
        assert self.runner.result is not None
        with anyio.move_on_after(LINGER_SECONDS):
            await self._done.wait()
        assert self._server is not None
        for client in list(self._server.clients):
            await client.flush(1.0)

    def _import_the_rest(self, tasks: TaskGroup) -> None:
        # Beside the nodes and the link, which have their own imports to do.
        tasks.start_soon(anyio.to_thread.run_sync, _import_what_is_needed_later, self._plan)

    def _lines_shed(self) -> int:
        return self._server.shed if self._server is not None else 0


def main(
    path: Path, lock_descriptor: int | None, before_processes: Callable[[], None] = lambda: None
) -> int:
    """Run the plan in a runtime directory. Returns the exit code: 0 if no node failed.

    ``before_processes`` is called before this process starts another one.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    directory = RuntimeDir.take_over(path, lock_descriptor)
    background = None
    try:
        plan = protocol.RunPlan.model_validate_json((path / PLAN).read_bytes())
        before_processes()
        background = Background(plan, directory)
        anyio.run(background.run)
    except Exception as error:
        # The daemon is to hear of it from the result; our own log has the traceback.
        if background is not None and background.runner.result is None:
            failed = protocol.DataflowResult(
                dataflow_id=plan.dataflow_id,
                name=plan.name,
                error=f"the runner failed: {_first(error)!r}",
            )
            _write_result(directory, failed)
        raise
    finally:
        keep = background is not None and not background.acknowledged
        directory.release(keep=keep)
        if background is not None:
            background.runner.reaper.dismiss()
    result = background.runner.result
    return os.EX_OK if result is not None and result.ok else 1


def _write_result(directory: RuntimeDir, result: protocol.DataflowResult) -> None:
    try:
        directory.write(RESULT, result.model_dump_json())
    except OSError as error:
        # Whoever is connected hears of it all the same.
        print(f"cannot write {directory.path / RESULT}: {error}", file=sys.stderr, flush=True)


def _import_what_is_needed_later(plan: protocol.RunPlan) -> None:
    """A runner outlives upgrades: what it imports late may be another version's by then."""
    modules = ["psutil", "dora_config.dataflow.graph", "dora_daemon.build.python_env"]
    modules += ["dora_daemon.runner.link.supervisor", "dora_daemon.runner.process.download"]
    if any(_sends_lines(node) for node in plan.resolved.nodes):
        modules += ["pyarrow", "dora_node_api.data.arrow"]
    for name in modules:
        importlib.import_module(name)


def _sends_lines(node: ResolvedNode) -> bool:
    reads_logs = any(isinstance(i.source, LogSource) for i in node.inputs.values())
    return reads_logs or node.send_stdout_as is not None or node.send_logs_as is not None


def _first(error: Exception) -> BaseException:
    """The error itself, out of the groups that task groups wrap it in."""
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
