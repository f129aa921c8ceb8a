"""Builds for the coordinator: one process each, which reports events and a result.

A build ends with the connection over which it was requested. Builds in the same folder run one
after another.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final
from weakref import WeakValueDictionary

import anyio
from anyio.abc import TaskGroup
from pydantic import ValidationError

from dora_config.errors import os_error_text
from dora_config.protocol.builds import (
    BuildEnded,
    BuildEvents,
    BuildEventsAck,
    BuildPart,
    CancelBuild,
    NodeBuildEvent,
)
from dora_config.protocol.daemon import DaemonMessage
from dora_daemon.agent.builds.files import BuildFiles, BuildRecord
from dora_daemon.agent.node_paths import LocalMachine, base_directory, deliver
from dora_daemon.build.job import BuildJob, BuildOutcome, BuildReport
from dora_daemon.build.own_environment import build_key
from dora_daemon.code.delivery import CodeNotDelivered
from dora_daemon.daemon_threads import run_in_daemon_thread
from dora_daemon.inspection.process import BUILD_MODULE, SideProcess

BATCH_PAUSE = 0.05
"""Seconds in which events are collected into a batch."""

END_TIMEOUT = 10.0
"""Seconds for a cancelled build to end its commands before it is killed."""

LAST_OUTPUT = 2000
"""Bytes read from the end of the output of a build that failed unexpectedly."""

MAX_LINES: Final = 2000
"""Printed lines in the queue; the oldest are dropped."""

MAX_BATCH: Final = 500
"""Events of a build in one message."""


class BuildEventQueue:
    """Events of a build that wait for the coordinator; one batch is unacknowledged at a time."""

    def __init__(self) -> None:
        self._events: deque[NodeBuildEvent] = deque()
        self._lines = 0
        self._dropped = 0
        self._is_unacknowledged = False

    def add(self, event: NodeBuildEvent) -> None:
        self._events.append(event)
        if event.what != "output":
            return
        self._lines += 1
        if self._lines > MAX_LINES:
            oldest = next(one for one in self._events if one.what == "output")
            self._events.remove(oldest)
            self._lines -= 1
            self._dropped += 1

    def next_batch(self) -> tuple[tuple[NodeBuildEvent, ...], int] | None:
        """Return the next events and the number of lines dropped before them.

        None while no event waits or a batch is unacknowledged.
        """
        if self._is_unacknowledged or not self._events:
            return None
        self._is_unacknowledged = True
        count = min(MAX_BATCH, len(self._events))
        batch = tuple(self._events.popleft() for _ in range(count))
        self._lines -= sum(event.what == "output" for event in batch)
        dropped, self._dropped = self._dropped, 0
        return batch, dropped

    def acknowledge(self) -> None:
        """Let the next batch be sent."""
        self._is_unacknowledged = False

    @property
    def is_empty(self) -> bool:
        return not self._events


@dataclass(slots=True)
class _Running:
    scope: anyio.CancelScope
    events: BuildEventQueue = field(default_factory=BuildEventQueue)
    changed: anyio.Event = field(default_factory=anyio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@dataclass(eq=False)
class BuildProcesses:
    _tasks: TaskGroup
    _root: Path
    """Contains runtime directories."""
    _machine: Callable[[], LocalMachine]
    _files: BuildFiles
    _send: Callable[[DaemonMessage], None]
    _in_use: Callable[[], Collection[str]]
    """Returns the builds that parts need."""
    _running: dict[str, _Running] = field(default_factory=dict, init=False)
    _folders: WeakValueDictionary[Path, anyio.Lock] = field(
        default_factory=WeakValueDictionary, init=False
    )
    """Locks, each kept by the builds that hold it or wait for it."""

    def handle(self, message: BuildPart | CancelBuild | BuildEventsAck) -> None:
        running = self._running.get(message.build_id)
        match message:
            case BuildPart() if running is None:
                running = self._running[message.build_id] = _Running(anyio.CancelScope())
                self._tasks.start_soon(self._run, message, running)
            case CancelBuild() if running is not None:
                running.scope.cancel()
            case BuildEventsAck() if running is not None:
                running.events.acknowledge()
                running.wake()
            case _:
                pass  # a repeated request, or a build that has ended

    def cancel_all(self) -> None:
        for running in self._running.values():
            running.scope.cancel()

    async def _run(self, message: BuildPart, running: _Running) -> None:
        try:
            with running.scope:
                base = base_directory(message.spec, self._machine(), message.build_id)
                async with self._folders.setdefault(base, anyio.Lock()):
                    ended = await self._build(message, base, running)
                self._send(ended)
        finally:
            del self._running[message.build_id]

    async def _build(self, message: BuildPart, base: Path, running: _Running) -> BuildEnded:
        build_id = message.build_id
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_events, build_id, running)
            try:
                keys = await self._deliver(message, running)
                outcome, output = await self._run_process(message, base, running, keys)
            except CodeNotDelivered as error:
                tasks.cancel_scope.cancel()
                return BuildEnded(build_id=build_id, problem=str(error))
            except OSError as error:
                outcome, output = None, f": {error}"
            while not running.events.is_empty:
                await running.changed.wait()
            tasks.cancel_scope.cancel()
        if outcome is None:
            return BuildEnded(build_id=build_id, problem=f"its build ended unexpectedly{output}")
        if outcome.failures:
            return BuildEnded(build_id=build_id, failures=outcome.failures)
        record = BuildRecord(
            build_id=build_id, places={one.node: one.place for one in outcome.nodes}
        )
        try:
            self._files.save(record, in_use=self._in_use())
        except OSError as error:
            problem = f"cannot record the build: {os_error_text(error)}"
            return BuildEnded(build_id=build_id, problem=problem)
        return BuildEnded(build_id=build_id, nodes=outcome.nodes)

    async def _deliver(self, message: BuildPart, running: _Running) -> dict[str, str]:
        """Fetch the code of nodes; return the build keys of those that need a build."""
        spec = message.spec
        delivered = await deliver(spec, self._machine(), message.build_id, message.replaces)
        for node_id, code in delivered.items():
            text = f"received its code: {len(code.files)} files, {code.size >> 10} KiB"
            running.events.add(NodeBuildEvent(node=node_id, what="step", text=text))
            running.wake()
        return {
            node.id: build_key(node, delivered[node.id])
            for node in spec.resolved.nodes
            if node.id in delivered and node.needs_build
        }

    async def _send_events(self, build_id: str, running: _Running) -> None:
        while True:
            batch = running.events.next_batch()
            if batch is None:
                await running.changed.wait()
                await anyio.sleep(BATCH_PAUSE)
                continue
            events, dropped = batch
            self._send(BuildEvents(build_id=build_id, events=events, dropped=dropped))
            running.wake()

    async def _run_process(
        self, message: BuildPart, base: Path, running: _Running, keys: dict[str, str]
    ) -> tuple[BuildOutcome | None, str]:
        """Return the outcome, or None and the last output of a process that failed."""
        job = BuildJob(
            resolved=message.spec.resolved,
            root=str(self._root),
            base_dir=str(base),
            uv=message.spec.uv,
            settings=message.settings,
            build_keys=keys,
        )
        if not any(node.needs_build for node in job.resolved.nodes):
            return BuildOutcome(), ""
        with tempfile.TemporaryFile() as errors:
            process = SideProcess(BUILD_MODULE, job, errors=errors)
            try:
                outcome = await _listen(process, running)
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(process)
            if outcome is None:
                return None, _last_output(errors, process.process.returncode)
            return outcome, ""


async def _listen(process: SideProcess, running: _Running) -> BuildOutcome | None:
    """Read reports until the output ends; return the outcome."""
    outcome: BuildOutcome | None = None
    async for line in process.lines():
        with suppress(ValidationError):  # other lines are printed by libraries
            report = BuildReport.model_validate_json(line)
            outcome = report.outcome or outcome
            if report.event is not None:
                running.events.add(report.event)
                running.wake()
    return outcome


async def _end(process: SideProcess) -> None:
    """End the process; after `END_TIMEOUT` kill it, and its reaper kills its commands."""
    process.finish()
    with anyio.move_on_after(END_TIMEOUT):
        await run_in_daemon_thread(process.wait)
        return
    process.process.kill()
    await run_in_daemon_thread(process.wait)


def _last_output(errors: IO[bytes], code: int | None) -> str:
    size = os.fstat(errors.fileno()).st_size
    text = os.pread(errors.fileno(), LAST_OUTPUT, max(0, size - LAST_OUTPUT))
    lines = text.decode(errors="replace").splitlines()[-5:]
    return f" (exit code {code})" + "".join(f"\n  {line}" for line in lines)
