"""Builds that the coordinator asks for: a process each, news passed on, results remembered.

A build lives as long as the connection over which it was asked for. Builds in the same folder wait
for each other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import IO

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, Process, TaskGroup
from pydantic import ValidationError

from dora_config.access import TOKEN_VARIABLE
from dora_config.protocol.builds import (
    BuildEnded,
    BuildEvents,
    BuildEventsAck,
    BuildPart,
    CancelBuild,
    NodeBuildEvent,
    PreparedNode,
)
from dora_config.protocol.daemon import DaemonMessage
from dora_config.spawn_argv import run_module
from dora_daemon.agent.builds.files import BuildFiles, BuildRecord
from dora_daemon.agent.builds.reports import NewsBuffer
from dora_daemon.agent.node_paths import Machine, base_directory, deliver
from dora_daemon.build.job import JOB, BuildJob, BuildOutcome, Report
from dora_daemon.build.own_environment import build_key
from dora_daemon.code.delivery import CodeNotDelivered
from dora_daemon.process_tree.errors import RuntimeDirError
from dora_daemon.process_tree.runtime_dir import RuntimeDir

BATCH_PAUSE = 0.05
"""Seconds in which news that come together are told together."""

END_TIMEOUT = 10.0
"""Seconds for a cancelled build to end its commands, before it is killed."""

LAST_WORDS = 2000
"""Bytes of what a build that died has printed."""


@dataclass(slots=True)
class _Running:
    scope: anyio.CancelScope
    buffer: NewsBuffer = field(default_factory=NewsBuffer)
    changed: anyio.Event = field(default_factory=anyio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class Builds:
    def __init__(
        self,
        tasks: TaskGroup,
        root: Path,
        machine: Callable[[], Machine],
        files: BuildFiles,
        tell: Callable[[DaemonMessage], None],
        in_use: Callable[[], Collection[str]],
    ) -> None:
        """``root`` holds runtime directories; ``in_use`` gives the builds that parts need."""
        self._tasks = tasks
        self._root = root
        self._machine = machine
        self._files = files
        self._tell = tell
        self._in_use = in_use
        self._running: dict[str, _Running] = {}
        self._folders: dict[Path, anyio.Lock] = {}

    def handle(self, message: BuildPart | CancelBuild | BuildEventsAck) -> None:
        running = self._running.get(message.build_id)
        match message:
            case BuildPart() if running is None:
                running = self._running[message.build_id] = _Running(anyio.CancelScope())
                self._tasks.start_soon(self._run, message, running)
            case CancelBuild() if running is not None:
                running.scope.cancel()
            case BuildEventsAck() if running is not None:
                running.buffer.taken()
                running.wake()
            case _:
                pass  # repeated, or over

    def cancel_all(self) -> None:
        """The connection is gone, and with it whoever wanted the builds."""
        for running in self._running.values():
            running.scope.cancel()

    async def _run(self, message: BuildPart, running: _Running) -> None:
        try:
            with running.scope:
                base = base_directory(message.spec, self._machine(), message.build_id)
                async with self._alone_in(base):
                    ended = await self._build(message, base, running)
                self._tell(ended)
        finally:
            del self._running[message.build_id]

    @asynccontextmanager
    async def _alone_in(self, base: Path) -> AsyncIterator[None]:
        lock = self._folders.setdefault(base, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            found = lock.statistics()
            if not found.locked and not found.tasks_waiting:
                self._folders.pop(base, None)

    async def _build(self, message: BuildPart, base: Path, running: _Running) -> BuildEnded:
        build_id = message.build_id
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell_news, build_id, running)
            try:
                keys = await self._deliver(message, running)
                outcome, last_words = await self._in_a_process(message, base, running, keys)
            except CodeNotDelivered as error:
                tasks.cancel_scope.cancel()
                return BuildEnded(build_id=build_id, problem=str(error))
            except (RuntimeDirError, OSError) as error:
                outcome, last_words = None, f": {error}"
            while not running.buffer.is_empty:
                await running.changed.wait()
            tasks.cancel_scope.cancel()
        if outcome is None:
            return BuildEnded(
                build_id=build_id, problem=f"its build ended unexpectedly{last_words}"
            )
        if outcome.failures:
            return BuildEnded(build_id=build_id, failures=outcome.failures)
        record = BuildRecord(
            build_id=build_id, places={one.node: one.place for one in outcome.nodes}
        )
        try:
            self._files.save(record, in_use=self._in_use())
        except OSError as error:
            problem = f"{error.filename}: the build cannot be remembered: {error.strerror}"
            return BuildEnded(build_id=build_id, problem=problem)
        nodes = tuple(PreparedNode(node=one.node, commit=one.commit) for one in outcome.nodes)
        return BuildEnded(build_id=build_id, nodes=nodes)

    async def _deliver(self, message: BuildPart, running: _Running) -> dict[str, str]:
        """Bring the code of the nodes here; the keys of the builds of those that have some."""
        spec = message.spec
        delivered = await deliver(spec, self._machine(), message.build_id)
        for node, code in delivered.sets.items():
            text = f"its code is here: {len(code.files)} files, {code.size >> 10} KiB"
            running.buffer.add(NodeBuildEvent(node=node, what="step", text=text))
            running.wake()
        return {
            node.id: build_key(node, delivered.sets[node.id])
            for node in spec.resolved.nodes
            if node.id in delivered.sets and node.needs_build
        }

    async def _tell_news(self, build_id: str, running: _Running) -> None:
        while True:
            portion = running.buffer.next()
            if portion is None:
                await running.changed.wait()
                await anyio.sleep(BATCH_PAUSE)
                continue
            news, left_out = portion
            self._tell(BuildEvents(build_id=build_id, news=news, left_out=left_out))
            running.wake()

    async def _in_a_process(
        self, message: BuildPart, base: Path, running: _Running, keys: dict[str, str]
    ) -> tuple[BuildOutcome | None, str]:
        """The outcome, or None and what the process has said before it died."""
        job = BuildJob(
            resolved=message.spec.resolved,
            base_dir=str(base),
            uv=message.spec.uv,
            settings=message.settings,
            own=keys,
        )
        if not any(node.needs_build for node in job.resolved.nodes):
            return BuildOutcome(), ""
        directory = await anyio.to_thread.run_sync(RuntimeDir.create, self._root)
        with tempfile.TemporaryFile() as errors:
            try:
                directory.write(JOB, job.model_dump_json())
                process = await _spawn(directory, errors)
            finally:
                os.close(directory.lock_descriptor)
            try:
                outcome = await _listen(process, running)
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(process)
            if outcome is None:
                return None, _last_words(errors, process.returncode)
            return outcome, ""


async def _spawn(directory: RuntimeDir, errors: IO[bytes]) -> Process:
    """The build process; it keeps the lock of its directory from the first moment."""
    words = [*run_module("dora_daemon.build"), str(directory.path)]
    return await anyio.open_process(
        [*words, str(directory.lock_descriptor)],
        stdin=PIPE,
        stdout=PIPE,
        stderr=errors,
        env={name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE},
        start_new_session=True,
        pass_fds=(directory.lock_descriptor,),
    )


async def _listen(process: Process, running: _Running) -> BuildOutcome | None:
    """Take in what it reports until its output ends."""
    assert process.stdout is not None
    outcome: BuildOutcome | None = None
    async for line in _lines(process.stdout):
        with suppress(ValidationError):  # what is no report was printed by a library
            report = Report.model_validate_json(line)
            outcome = report.outcome or outcome
            if report.event is not None:
                running.buffer.add(report.event)
                running.wake()
    await process.wait()
    return outcome


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[bytes]:
    pending = b""
    async for chunk in stream:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield line


async def _end(process: Process) -> None:
    """Let it end its commands; after a while its reaper has to."""
    assert process.stdin is not None
    await process.stdin.aclose()
    with anyio.move_on_after(END_TIMEOUT):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.wait()
    await process.aclose()


def _last_words(errors: IO[bytes], code: int | None) -> str:
    size = os.fstat(errors.fileno()).st_size
    text = os.pread(errors.fileno(), LAST_WORDS, max(0, size - LAST_WORDS))
    lines = text.decode(errors="replace").splitlines()[-5:]
    return f" (exit code {code})" + "".join(f"\n  {line}" for line in lines)
