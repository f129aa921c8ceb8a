"""Prepares a dataflow's nodes for `run` and `build`, showing progress as it comes."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dora_cli import output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config import LoadedDataflow
    from dora_daemon.build import BuildOptions, BuildResult
    from dora_daemon.build.command import OnCommand

STOPPED_BY_USER = 130


@dataclass(frozen=True, slots=True)
class LockChoice:
    """What the lock options ask for; `path` None: beside the dataflow file."""

    locked: bool = False
    write: bool = False
    path: Path | None = None

    def file(self, dataflow: Path) -> Path:
        """The lock file that is meant."""
        from dora_daemon.build.lock_file import lock_file_path

        return self.path or lock_file_path(dataflow)


def needs_work(loaded: LoadedDataflow) -> bool:
    """Whether any node has something to prepare."""
    return any(node.needs_build for node in loaded.resolved.nodes)


def prepare_nodes(
    loaded: LoadedDataflow,
    base_dir: Path,
    *,
    uv: bool = False,
    offline: bool = False,
    jobs: int | None = None,
    lock: LockChoice = LockChoice(),
    rebuild: bool = False,
    verbose: bool = False,
) -> BuildResult:
    """Prepare all nodes and remember the build in the session file.

    Raises BuildError, LockFileError; CommandFailed when the user interrupts.
    """
    from dora_daemon.build import BuildOptions, session_file

    commits = locked_commits(loaded, lock)
    options = BuildOptions(uv=uv, offline=offline, jobs=jobs, commits=commits, rebuild=rebuild)
    result = _run(loaded, base_dir, options, verbose=verbose)
    if lock.write:
        found = {one.node: one.commit for one in result.nodes if one.commit is not None}
        write_lock(loaded, found, lock.file(loaded.path))
    current = session_file.fingerprint(loaded.resolved, uv=uv)
    session = session_file.read_session(loaded.path)
    session_file.write_session(
        loaded.path, session.after_build(result.build_id, current, result.nodes)
    )
    return result


def locked_commits(loaded: LoadedDataflow, lock: LockChoice) -> dict[str, str] | None:
    """By node id, when git sources must follow the lock file; raises LockFileError."""
    from dora_daemon.build.lock_file import check_lock, read_lock_file

    if not lock.locked or all(node.git is None for node in loaded.resolved.nodes):
        return None
    path = lock.file(loaded.path)
    return check_lock(path, read_lock_file(path), loaded.resolved)


def write_lock(loaded: LoadedDataflow, commits: Mapping[str, str], path: Path) -> None:
    """Record the commit of each node with a git source; raises LockFileError."""
    from dora_daemon.build.lock_file import lock_source, write_lock_file

    sources = {
        node.id: lock_source(node.git, commits[node.id])
        for node in loaded.resolved.nodes
        if node.git is not None and node.id in commits
    }
    write_lock_file(path, sources)
    output.remark(f"wrote {path} ({_count(len(sources), 'git source')})")


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

    with (
        guarded() if needs_work(loaded) else nullcontext() as on_command,
        progress,
    ):
        result = anyio.run(build, on_command)
    if result is None:
        output.failure(
            f"the build was interrupted by {interrupted[0]}; run it again to complete it"
        )
        raise CommandFailed(STOPPED_BY_USER)
    return result


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
