"""A runner in a process of its own: control socket, and a result on disk until acknowledged."""

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

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import LogSource
from dora_config.errors import DoraError, first_error
from dora_config.protocol import runner as protocol
from dora_config.protocol.runner_events import LogLine, LogLinesDropped, RunOutput
from dora_daemon.out_dir import history_file
from dora_daemon.process_tree.reaper import RESULT
from dora_daemon.process_tree.reaper_process import ReaperProcess
from dora_daemon.process_tree.runtime_dir import PLAN, RuntimeDir
from dora_daemon.runner.control.requests import ControlRequests
from dora_daemon.runner.control.server import ControlServer
from dora_daemon.runner.foreground import signals_stop
from dora_daemon.runner.logs.history import record_failed_start
from dora_daemon.runner.machine.events import RunStopRequested, StateEvent
from dora_daemon.runner.process.injection import make_package_folder
from dora_daemon.runner.process.prepare import Preparer
from dora_daemon.runner.service import Runner
from dora_daemon.runner.spare import LATE_MODULES
from dora_node_api.protocol.runner_index import CONTROL_SOCKET

LATE_SECONDS = 1.0
"""Seconds until modules that are needed later are imported: nodes and link import theirs first."""
LINGER_SECONDS = 30.0
"""Seconds for the result to be acknowledged on the socket."""


class Background:
    """The runner, its control socket, and the wait for the acknowledgement.

    Create it inside the event loop.
    """

    def __init__(
        self, plan: protocol.RunPlan, directory: RuntimeDir, reaper: ReaperProcess
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._reaper = reaper
        self._server = ControlServer(directory.path / CONTROL_SOCKET, self.answer, self._warn)
        self._runner: Runner | None = None
        self._requests: ControlRequests | None = None
        self._acknowledged = anyio.Event()
        self.result: protocol.DataflowResult | None = None

    @property
    def acknowledged(self) -> bool:
        return self._acknowledged.is_set()

    async def run(self) -> None:
        """Run the dataflow, then wait until the result is acknowledged."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_import_late_modules, self._plan)
                if await self._run_dataflow(tasks):
                    with anyio.move_on_after(LINGER_SECONDS):
                        await self._acknowledged.wait()
                    await self._server.finish()
                tasks.cancel_scope.cancel()
        finally:
            if self._runner is not None:
                self._runner.close()

    async def _run_dataflow(self, tasks: TaskGroup) -> bool:
        """Return whether it ran. The daemon reads why it could not start when this process ends."""
        with signals_stop(self._emit):
            try:
                packages = make_package_folder(self._directory.path / "packages")
                preparer = Preparer(self._plan, packages)
                preparer.prepare_all()
                self._reaper.start()
                self._runner = runner = Runner(
                    preparer,
                    self._directory,
                    self._reaper,
                    on_event=self._put_event,
                    keep_result=self._keep_result,
                    foreground=False,
                )
                self._requests = ControlRequests(runner)
                tasks.start_soon(self._server.serve)
                await runner.run()
            except DoraError as error:
                result = protocol.DataflowResult(
                    dataflow_id=self._plan.dataflow_id, name=self._plan.name, error=str(error)
                )
                record_failed_start(history_file(self._plan), self._plan, str(error))
                self._keep_result(result)
                return False
        return True

    def _emit(self, event: StateEvent) -> None:
        if self._runner is not None:
            self._runner.dispatcher.emit(event)

    def _warn(self, message: str) -> None:
        if self._runner is not None:
            self._runner.services.logs.warn(message)

    def _put_event(self, event: RunOutput) -> None:
        if not isinstance(event, LogLine | LogLinesDropped):
            self._server.put_event(event)
        elif isinstance(event, LogLine) and event.node is None:
            print(f"{event.ts} {event.level} {event.message}", file=sys.stderr, flush=True)

    async def answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply:
        """Answer requests; those about the process itself here."""
        match request:
            case protocol.AcknowledgeResult() if self.result is None:
                return protocol.Refusal(message="the dataflow has not ended yet")
            case protocol.AcknowledgeResult():
                self._acknowledge()
                return protocol.Done()
            case protocol.ShutDown(grace=grace):
                self._acknowledge()
                if self.result is None:
                    reason = "shutdown requested"
                    force = grace is None
                    self._emit(RunStopRequested(reason, grace=grace, force=force, recovering=True))
                return protocol.Done()
            case _:
                assert self._requests is not None
                return await self._requests.answer(request)

    def _keep_result(self, result: protocol.DataflowResult) -> None:
        """Store the result before it is reported: the process may be killed right after that."""
        self.result = result
        if not self.acknowledged:
            _write_result(self._directory, result)

    def _acknowledge(self) -> None:
        self._acknowledged.set()
        # remove it now, so that it does not stay if the process is killed before its end
        self._directory.forget_result()


def main(
    path: Path, lock_descriptor: int | None, before_processes: Callable[[], None] = lambda: None
) -> int:
    """Run the plan in a runtime directory. Return the exit code: 0 if no node failed.

    ``before_processes`` is called before this process starts another one.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    directory = RuntimeDir.take_over(path, lock_descriptor)
    with ReaperProcess(directory, keep=True) as reaper:
        plan = protocol.RunPlan.model_validate_json((path / PLAN).read_bytes())
        before_processes()
        result = anyio.run(_run, plan, directory, reaper)
        return os.EX_OK if result is not None and result.ok else 1


async def _run(
    plan: protocol.RunPlan, directory: RuntimeDir, reaper: ReaperProcess
) -> protocol.DataflowResult | None:
    background = Background(plan, directory, reaper)
    try:
        await background.run()
    except Exception as error:
        # the daemon reads the cause from the result; the traceback goes to runner.log
        if background.result is None and not background.acknowledged:
            failed = protocol.DataflowResult(
                dataflow_id=plan.dataflow_id,
                name=plan.name,
                error=f"the runner failed: {first_error(error)!r}",
            )
            _write_result(directory, failed)
        raise
    return background.result


def _write_result(directory: RuntimeDir, result: protocol.DataflowResult) -> None:
    try:
        directory.write(RESULT, result.model_dump_json())
    except OSError as error:
        # connected daemons still receive the result
        print(f"cannot write {directory.path / RESULT}: {error}", file=sys.stderr, flush=True)


async def _import_late_modules(plan: protocol.RunPlan) -> None:
    """Import modules that are needed later, before an upgrade can replace their files."""
    modules = [*LATE_MODULES]
    if any(_sends_lines(node) for node in plan.resolved.nodes):
        modules += ["pyarrow", "dora_node_api.data.arrow"]
    else:
        await anyio.sleep(LATE_SECONDS)
    for name in modules:
        try:
            await anyio.to_thread.run_sync(importlib.import_module, name)
        except Exception as error:  # noqa: BLE001 - one imported in part can raise anything
            print(f"cannot import {name} yet: {error}", file=sys.stderr, flush=True)


def _sends_lines(node: ResolvedNode) -> bool:
    reads_logs = any(isinstance(i.source, LogSource) for i in node.inputs.values())
    return reads_logs or node.send_stdout_as is not None or node.send_logs_as is not None
