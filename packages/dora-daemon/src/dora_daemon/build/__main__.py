"""A build in a process of its own: ``python -m dora_daemon.build JOB_FD``.

See ``side_process``; its messages are :class:`BuildReport`. SIGINT or SIGTERM cancels it, too; if
it is killed, its reaper kills its commands.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

import dora_config.quick_imports  # noqa: F401
from dora_config.access import private_dir, state_dir
from dora_config.protocol.builds import NodeBuildEvent
from dora_daemon.build.builder import MAX_JOBS, BuildOptions, prepare
from dora_daemon.build.errors import BuildError
from dora_daemon.build.file_lock import file_lock
from dora_daemon.build.job import BuildJob, BuildOutcome, BuildReport
from dora_daemon.inspection.side_process import read_request, write_line
from dora_daemon.process_tree.reaper_process import ReaperProcess
from dora_daemon.process_tree.runtime_dir import RuntimeDir

LOCK = "build.lock"
"""File in the state directory of the user."""


def main() -> int:
    """Do the job; return exit code 0 if the build was not cancelled."""
    job = read_request(BuildJob)
    directory = RuntimeDir.create(Path(job.root))
    with ReaperProcess(directory) as reaper:
        reaper.start()
        Path(job.base_dir).mkdir(parents=True, exist_ok=True)
        outcome = anyio.run(_run, job, directory)
        if outcome is None:
            return 1
        _print(BuildReport(outcome=outcome))
        return 0


async def _run(job: BuildJob, directory: RuntimeDir) -> BuildOutcome | None:
    """Return the outcome; None if the build was cancelled."""
    async with anyio.create_task_group() as tasks:

        async def cancel_on_signal() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    tasks.cancel_scope.cancel()

        def read_input() -> None:
            if not os.read(0, 4096):  # the daemon has ended or cancels the build
                asyncio.get_running_loop().remove_reader(0)
                tasks.cancel_scope.cancel()

        tasks.start_soon(cancel_on_signal)
        asyncio.get_running_loop().add_reader(0, read_input)
        async with _one_at_a_time(job):
            outcome = await _build(job, directory)
        tasks.cancel_scope.cancel()
        return outcome
    return None


@asynccontextmanager
async def _one_at_a_time(job: BuildJob) -> AsyncIterator[None]:
    """Exclude builds of other daemons: without uv, all install into the Python that runs dora."""
    if job.uv:
        yield
        return

    def report_wait() -> None:
        for node in job.resolved.nodes:
            _report(
                NodeBuildEvent(
                    node=node.id, what="skipped", text="waits for another build on this machine"
                )
            )

    async with file_lock(private_dir(state_dir()) / LOCK, report_wait):
        yield


async def _build(job: BuildJob, directory: RuntimeDir) -> BuildOutcome:
    settings = job.settings
    options = BuildOptions(
        uv=job.uv,
        offline=settings.offline,
        jobs=MAX_JOBS if settings.parallel else None,
        commits=settings.commits,
        apply_deploy=True,
        build_keys=job.build_keys,
    )
    try:
        nodes = await prepare(
            job.resolved,
            Path(job.base_dir),
            options=options,
            on_event=_report,
            on_command=directory.record_process,
        )
    except BuildError as error:
        return BuildOutcome(failures=error.failures)
    return BuildOutcome(nodes=nodes)


def _report(event: NodeBuildEvent) -> None:
    if event.what != "started":
        _print(BuildReport(event=event))


def _print(report: BuildReport) -> None:
    with suppress(BrokenPipeError):  # the end of standard input cancels the build
        write_line(report)


if __name__ == "__main__":
    sys.exit(main())
