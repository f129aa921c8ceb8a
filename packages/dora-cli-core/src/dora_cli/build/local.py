"""Builds on this machine, for `dora run` and `dora build`, and the lock options of both."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dora_cli import output
from dora_cli.errors import STOPPED_BY_USER, CommandFailed

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow
    from dora_config.protocol.builds import BuiltNode
    from dora_daemon.build.builder import BuildOptions
    from dora_daemon.build.command import OnCommand
    from dora_daemon.build.session_file import BuildSession


@dataclass(frozen=True, slots=True)
class LockChoice:
    """Values of the lock options; `path` None: beside the dataflow file."""

    locked: bool = False
    write: bool = False
    path: Path | None = None

    @classmethod
    def from_options(cls, *, locked: bool, write: bool, path: Path | None) -> LockChoice:
        """Check the options of a command; raises BadParameter for a contradiction."""
        if locked and write:
            raise typer.BadParameter("--locked and --write-lockfile cannot be used together")
        if path is not None and not (locked or write):
            output.warn("--lockfile has no effect without --locked or --write-lockfile")
        return cls(locked, write, path)

    def commits(self, loaded: LoadedDataflow) -> dict[str, str] | None:
        """Return the locked commit of each node; None without `--locked`; raises LockFileError."""
        from dora_daemon.build.lock_file import check_lock, read_lock_file

        if not self.locked or all(node.git is None for node in loaded.resolved.nodes):
            return None
        path = self._file(loaded)
        return check_lock(path, read_lock_file(path), loaded.resolved)

    def record(self, loaded: LoadedDataflow, commits: Mapping[str, str]) -> None:
        """Write the commits of git sources for `--write-lockfile`; raises LockFileError."""
        from dora_daemon.build.lock_file import lock_source, write_lock_file

        if not self.write:
            return
        sources = {
            node.id: lock_source(node.git, commits[node.id])
            for node in loaded.resolved.nodes
            if node.git is not None and node.id in commits
        }
        path = self._file(loaded)
        write_lock_file(path, sources)
        output.remark(f"wrote {path} ({output.counted(len(sources), 'git source')})")

    def _file(self, loaded: LoadedDataflow) -> Path:
        from dora_daemon.build.lock_file import lock_file_path

        return self.path or lock_file_path(loaded.path)


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
    verbose: bool = False,
) -> BuildSession:
    """Build all nodes; record the build in the session file and return it.

    Raises BuildError, LockFileError; CommandFailed when the user interrupts.
    """
    from dora_daemon.build.builder import BuildOptions
    from dora_daemon.build.session_file import fingerprint, record_build

    commits = lock.commits(loaded)
    options = BuildOptions(uv=uv, offline=offline, jobs=jobs, commits=commits)
    nodes = _run(loaded, base_dir, options, verbose=verbose)
    lock.record(loaded, {one.node: one.commit for one in nodes if one.commit is not None})
    current = fingerprint(loaded.resolved, uv=uv)
    return record_build(loaded.path, str(uuid.uuid4()), current, nodes=nodes)


def _run(
    loaded: LoadedDataflow, base_dir: Path, options: BuildOptions, *, verbose: bool
) -> tuple[BuiltNode, ...]:
    import anyio

    from dora_cli.build.progress import build_progress
    from dora_daemon.build.builder import prepare
    from dora_daemon.process_tree.reaper_process import ReaperProcess
    from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root

    nodes = [node.id for node in loaded.resolved.nodes if node.needs_build]
    progress = build_progress(nodes, verbose=verbose)
    interrupted: list[str] = []

    async def build(on_command: OnCommand | None) -> tuple[BuiltNode, ...] | None:
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

    with ExitStack() as resources:
        on_command = None
        if nodes:
            directory = RuntimeDir.create(runtime_root())
            resources.enter_context(ReaperProcess(directory)).start()
            on_command = directory.record_process
        result = anyio.run(build, on_command)
    if result is None:
        output.failure(f"build interrupted by {interrupted[0]}; run it again to complete it")
        raise CommandFailed(STOPPED_BY_USER)
    return result
