"""A runner in the foreground, for ``dora run``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from dora_config.errors import DoraError, first_error
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import (
    DataflowResult,
    LogLine,
    LogLinesDropped,
    RunnerEvent,
    RunOutput,
)
from dora_daemon.out_dir import history_file
from dora_daemon.process_tree.reaper import OWNER
from dora_daemon.process_tree.reaper_process import ReaperProcess
from dora_daemon.process_tree.runtime_dir import PLAN, RuntimeDir, runtime_root
from dora_daemon.runner.logs.event_queue import CLOSING_SECONDS, EventQueue
from dora_daemon.runner.logs.history import record_failed_start
from dora_daemon.runner.logs.logs import OutputGate
from dora_daemon.runner.machine.events import RunStopRequested, StateEvent
from dora_daemon.runner.process.injection import make_package_folder
from dora_daemon.runner.process.prepare import Preparer
from dora_daemon.runner.service import Runner
from dora_node_api.protocol.control_socket import bind_unix
from dora_node_api.protocol.runner_index import CONTROL_SOCKET

if TYPE_CHECKING:
    from dora_daemon.runner.control.server import ControlServer

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    plan: RunPlan,
    *,
    on_event: Callable[[RunOutput], None] | None = None,
    on_signal: Callable[[], None] = lambda: None,
    lossless: bool = False,
    before_start: Callable[[Path], None] | None = None,
    beside: Callable[[Runner], Coroutine[Any, Any, None]] | None = None,
) -> DataflowResult:
    """Run a dataflow to its end and return its result; call this on the main thread.

    ``on_event`` is called on a thread of its own, one event at a time and in order. When it is too
    slow, log lines (only those) are dropped and counted; with ``lossless`` the nodes that print are
    held back instead, and the end waits for it. SIGINT, SIGTERM and SIGHUP stop the dataflow
    gracefully, a second one kills; ``on_signal`` is called for each, on the main thread, and must
    unblock an ``on_event`` that may wait forever. ``before_start`` is called on a thread, with the
    runtime directory, when the runner's sockets exist and no node has started. ``beside`` runs as a
    task of the runner until the dataflow ends. Raises PreparationError if a node cannot be
    prepared; then no node was spawned.
    """
    gate = OutputGate() if lossless else None
    events = EventQueue(on_event, gate=gate)
    directory = RuntimeDir.create(runtime_root(os.environ))
    try:
        with ReaperProcess(directory) as reaper:
            with suppress(ValueError):  # a path is not UTF-8: `dora ui` does not show this run
                directory.write(OWNER, plan.dataflow_id)
                directory.write(PLAN, plan.model_dump_json())
            try:
                packages = make_package_folder(directory.path / "packages")
                preparer = Preparer(plan, packages, os.environ)
                preparer.prepare_all()
            except DoraError as error:
                record_failed_start(history_file(plan), plan, str(error))
                raise
            reaper.start()

            control = _Control(directory.path / CONTROL_SOCKET)

            def put(event: RunOutput) -> None:
                events.put(event)
                if not isinstance(event, LogLine | LogLinesDropped):
                    control.put(event)

            def create() -> Runner:
                return Runner(preparer, directory, reaper, on_event=put, foreground=True, gate=gate)

            ready = None if before_start is None else partial(before_start, directory.path)
            return anyio.run(_run, create, control, on_signal, ready, beside)
    finally:
        _drain(events, on_signal, lossless=lossless)


def _drain(events: EventQueue, on_signal: Callable[[], None], *, lossless: bool) -> None:
    """Wait until all events were read, without a limit if ``lossless``; Ctrl-C ends the wait."""
    try:
        events.close(None if lossless else CLOSING_SECONDS)
    except KeyboardInterrupt:
        on_signal()
        events.close()


async def _run(
    create: Callable[[], Runner],
    control: _Control,
    on_signal: Callable[[], None],
    before_start: Callable[[], None] | None,
    beside: Callable[[Runner], Coroutine[Any, Any, None]] | None,
) -> DataflowResult:
    runner: Runner | None = None

    def emit(event: StateEvent) -> None:
        if runner is not None:
            runner.dispatcher.emit(event)

    try:
        with signals_stop(emit, on_signal):
            runner = create()
            if before_start is not None:
                await anyio.to_thread.run_sync(before_start)  # it may connect to the runner
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(control.serve, runner)
                if beside is not None:
                    tasks.start_soon(beside, runner)
                result = await runner.run()
                await control.finish()
                tasks.cancel_scope.cancel()
            return result
    finally:
        if runner is not None:
            runner.close()


class _Control:
    """The socket for agents that adopt this run, such as that of `dora ui`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: ControlServer | None = None

    def put(self, event: RunnerEvent) -> None:
        """Send an event to the clients."""
        if self._server is not None:
            self._server.put_event(event)

    async def finish(self) -> None:
        """Wait for a limited time until the clients have read all replies and events."""
        if self._server is not None:
            await self._server.finish()

    async def serve(self, runner: Runner) -> None:
        """Answer clients; after an error, warn and leave the dataflow running."""
        try:
            await self._serve(runner)
        except (OSError, ImportError, ExceptionGroup) as error:
            self._server = None
            runner.services.logs.warn(
                f"the socket for `dora ui` failed ({first_error(error)!r}); the dataflow runs on, "
                "but other programs cannot observe or change it"
            )

    async def _serve(self, runner: Runner) -> None:
        """Serve clients; import the server at the first one."""
        listener = bind_unix(self._path)
        try:
            await anyio.wait_readable(listener)
            self._server = await anyio.to_thread.run_sync(self._create, runner, listener)
            await self._server.serve()
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    def _create(self, runner: Runner, listener: socket.socket) -> ControlServer:
        from dora_daemon.runner.control.requests import ControlRequests
        from dora_daemon.runner.control.server import ControlServer

        answer = ControlRequests(runner).answer
        return ControlServer(self._path, answer, runner.services.logs.warn, listener)


@contextmanager
def signals_stop(
    emit: Callable[[StateEvent], None], on_signal: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Stop gracefully on SIGINT, SIGTERM and SIGHUP; a second signal kills."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def stop(name: str) -> None:
        emit(RunStopRequested(f"signal {name}", force=bool(seen)))
        seen.append(name)
        on_signal()

    for number in STOPPING_SIGNALS:
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield
    finally:
        for number in STOPPING_SIGNALS:
            loop.remove_signal_handler(number)
