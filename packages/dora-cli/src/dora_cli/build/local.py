"""Builds on this machine, for `dora run` and `dora build`."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dora_cli import output
from dora_cli.build.lock_choice import LockChoice
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config import LoadedDataflow
    from dora_daemon.build import BuildOptions, BuildResult
    from dora_daemon.build.command import OnCommand

STOPPED_BY_USER = 130
"""Exit code after Ctrl-C."""


def needs_build(loaded: LoadedDataflow) -> bool:
    """Return whether any node has build steps."""
    return any(node.needs_build for node in loaded.resolved.nodes)


def prepare_nodes(
    loaded: LoadedDataflow,
    base_dir: Path,
    *,
    uv: bool = False,
    offline: bool = False,
    jobs: int | None = None,
    lock: LockChoice,
    rebuild: bool = False,
    verbose: bool = False,
) -> BuildResult:
    """Build all nodes and record the build in the session file.

    Raises BuildError, LockFileError; CommandFailed when the user interrupts.
    """
    from dora_daemon.build import BuildOptions, session_file

    commits = lock.commits(loaded)
    options = BuildOptions(uv=uv, offline=offline, jobs=jobs, commits=commits, rebuild=rebuild)
    result = _run(loaded, base_dir, options, verbose=verbose)
    lock.record(loaded, {one.node: one.commit for one in result.nodes if one.commit is not None})
    current = session_file.fingerprint(loaded.resolved, uv=uv)
    session = session_file.read_session(loaded.path)
    session_file.write_session(
        loaded.path, session.after_build(result.build_id, current, result.nodes)
    )
    return result


def _run(
    loaded: LoadedDataflow, base_dir: Path, options: BuildOptions, *, verbose: bool
) -> BuildResult:
    import anyio

    from dora_cli.build.progress import build_progress
    from dora_daemon.build import prepare
    from dora_daemon.build.guarded import guarded

    nodes = [node.id for node in loaded.resolved.nodes if node.needs_build]
    progress = build_progress(nodes, verbose=verbose)
    interrupted: list[str] = []

    async def build(on_command: OnCommand | None) -> BuildResult | None:
        async with anyio.create_task_group() as tasks:

            async def stop_on_signal() -> None:
                numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
                with anyio.open_signal_receiver(*numbers) as received:
                    async for number in received:
                        interrupted.append(signal.Signals(number).name)
                        tasks.cancel_scope.cancel()

            tasks.start_soon(stop_on_signal)
            result = await prepare(
                loaded.resolved,
                base_dir,
                options=options,
                on_event=progress.show,
                on_command=on_command,
            )
            tasks.cancel_scope.cancel()
            return result
        return None

    with guarded() if nodes else nullcontext() as on_command, progress:
        result = anyio.run(build, on_command)
    if result is None:
        output.failure(f"build interrupted by {interrupted[0]}; run it again to complete it")
        raise CommandFailed(STOPPED_BY_USER)
    return result
