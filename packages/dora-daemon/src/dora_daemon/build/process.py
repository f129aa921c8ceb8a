"""A build as a process of its own, which ends with whoever asked for it and leaves no command.

Its directory (of the runners' kind) holds ``job.json``. It prints a :class:`Report` a line, and is
cancelled by the end of its standard input, SIGINT or SIGTERM. When it is killed its reaper ends
the commands that it had started.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from dora_config.access import private_dir, state_dir
from dora_config.protocol.builds import FailedNode, NodeBuildEvent
from dora_config.protocol.runner import NodeLocation
from dora_daemon.build import events
from dora_daemon.build.errors import BuildError
from dora_daemon.build.job import JOB, BuildJob, Outcome, PlacedNode, Report
from dora_daemon.build.service import MOST_JOBS, BuildOptions, prepare
from dora_daemon.process_tree.reaper_process import ReaperProcess
from dora_daemon.process_tree.runtime_dir import RuntimeDir

LOCK = "build.lock"
"""In the state directory of the account."""
LOCK_POLL = 0.1


def main(path: Path, lock_descriptor: int) -> int:
    """Do the job in the directory; the exit code is 0 when there is an outcome."""
    directory = RuntimeDir.take_over(path, lock_descriptor)
    reaper = ReaperProcess(path)
    try:
        reaper.start()
        job = BuildJob.model_validate_json((path / JOB).read_bytes())
        Path(job.base_dir).mkdir(parents=True, exist_ok=True)
        outcome = anyio.run(_run, job, directory)
        if outcome is None:
            return 1
        _print(Report(outcome=outcome))
        return 0
    finally:
        directory.release()
        reaper.dismiss()


async def _run(job: BuildJob, directory: RuntimeDir) -> Outcome | None:
    """The outcome, None when the build was cancelled."""
    async with anyio.create_task_group() as tasks:

        async def cancel_on_signal() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    tasks.cancel_scope.cancel()

        def take_input() -> None:
            if not os.read(0, 4096):  # whoever wants the build is gone
                asyncio.get_running_loop().remove_reader(0)
                tasks.cancel_scope.cancel()

        tasks.start_soon(cancel_on_signal)
        asyncio.get_running_loop().add_reader(0, take_input)
        async with _one_at_a_time(job):
            outcome = await _build(job, directory)
        tasks.cancel_scope.cancel()
        return outcome
    return None


@asynccontextmanager
async def _one_at_a_time(job: BuildJob) -> AsyncIterator[None]:
    """Without uv all builds of an account install into the interpreter that runs dora: those of two
    daemons on one machine must not meet there.
    """
    if job.uv:
        yield
        return
    descriptor = os.open(private_dir(state_dir()) / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locked(descriptor):
            for node in job.resolved.nodes:
                text = "waits for another build on this machine"
                _print(Report(news=NodeBuildEvent(node=node.id, what="skipped", text=text)))
            while not _locked(descriptor):  # noqa: ASYNC110 - the other is another process
                await anyio.sleep(LOCK_POLL)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _build(job: BuildJob, directory: RuntimeDir) -> Outcome:
    settings = job.settings
    options = BuildOptions(
        uv=job.uv,
        offline=settings.offline,
        jobs=MOST_JOBS if settings.parallel else None,
        commits=settings.commits,
        apply_deploy=True,
        own=job.own,
        rebuild=settings.rebuild,
    )
    try:
        result = await prepare(
            job.resolved,
            Path(job.base_dir),
            options=options,
            on_event=_tell,
            on_command=directory.record_process,
        )
    except BuildError as error:
        return Outcome(
            failures=tuple(
                FailedNode(node=one.node, message=one.message, output=one.output)
                for one in error.failures
            )
        )
    return Outcome(
        nodes=tuple(
            PlacedNode(
                node=built.node,
                place=NodeLocation(
                    working_dir=str(built.working_dir),
                    python=str(built.python) if built.python is not None else None,
                ),
                commit=built.commit,
            )
            for built in result.nodes
        )
    )


def _tell(event: events.BuildEvent) -> None:
    news = as_news(event)
    if news is not None:
        _print(Report(news=news))


def as_news(event: events.BuildEvent) -> NodeBuildEvent | None:
    """An event as it goes over the wire; None for one that tells a reader nothing."""
    match event:
        case events.StepStarted(node=node, action=action):
            return NodeBuildEvent(node=node, what="step", text=action)
        case events.StepSkipped(node=node, reason=reason):
            return NodeBuildEvent(node=node, what="skipped", text=reason)
        case events.BuildOutput(node=node, line=line):
            return NodeBuildEvent(node=node, what="output", text=line)
        case events.NodeBuilt(node=node, seconds=seconds):
            return NodeBuildEvent(node=node, what="built", seconds=seconds)
        case events.NodeBuildFailed(failure=failure):
            return NodeBuildEvent(node=failure.node, what="failed", text=failure.message)
        case events.NodeBuildStarted():
            return None


def _print(report: Report) -> None:
    with suppress(BrokenPipeError):  # the end of our input says the same
        sys.stdout.write(report.model_dump_json(exclude_defaults=True) + "\n")
        sys.stdout.flush()
