"""Watches the files of nodes and reloads the nodes, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from dora_cli import output
from dora_cli.live.node_files import files_of, syntax_problem
from dora_config.dataflow.resolved import ResolvedNode

STEP_MS = 50
"""Milliseconds between two checks of the files."""
DEBOUNCE_MS = 400
"""Milliseconds for which further changes are collected."""
TICK_MS = 250
"""Milliseconds between two checks for reports while no file changes."""

GRACE = 5.0
"""Seconds from STOP to SIGTERM for the process of a replaced node."""

ReloadNode = Callable[[str], Awaitable[str | None]]
"""Reloads a node; returns why it was not reloaded."""

SETTLE_SECONDS = 0.15
"""Seconds without a change until a node is reloaded."""
MISSING_SECONDS = 2.0
"""Seconds until a removed file is reported; editors often replace files by removing them."""


@dataclass(frozen=True, slots=True)
class UnusableFile:
    """A file of nodes was removed or has a syntax error; the nodes keep their old code."""

    file: Path
    error: str | None
    """Line and message of a syntax error; None: the file was removed."""
    nodes: tuple[str, ...]


@dataclass(slots=True)
class _Contents:
    """The last contents of a file."""

    digest: str | None
    """SHA-256; None: the file does not exist."""
    error: str | None = None
    """Line and message of a syntax error."""
    settled_at: float = 0.0
    reported: bool = False

    @property
    def can_run(self) -> bool:
        return self.digest is not None and self.error is None


class ReloadState:
    """The files of all nodes, and what has changed in them; ``now`` is of a monotonic clock."""

    def __init__(self) -> None:
        self._files: dict[str, frozenset[Path]] = {}
        self._contents: dict[Path, _Contents] = {}
        self._changed: dict[str, set[Path]] = {}

    def set_files(self, node: str, digests: Mapping[Path, str | None]) -> None:
        """Set the files of a node; those that are new to it count as unchanged."""
        watched = self.files
        self._files[node] = frozenset(digests)
        for path, digest in digests.items():
            if path not in watched:
                self._contents[path] = _Contents(digest, reported=True)

    def remove(self, node: str) -> None:
        """Ignore changes of the files of a node from now on."""
        self._files.pop(node, None)
        self._changed.pop(node, None)

    def files_of(self, node: str) -> frozenset[Path]:
        return self._files.get(node, frozenset())

    @property
    def files(self) -> Collection[Path]:
        """All files that are watched."""
        return {path for files in self._files.values() for path in files}

    def users(self, path: Path) -> tuple[str, ...]:
        """Return the nodes that use a file."""
        return tuple(node for node, files in self._files.items() if path in files)

    def changed(self, digests: Mapping[Path, str | None]) -> list[Path]:
        """Return the paths whose digest has changed."""
        return [path for path, digest in digests.items() if self._contents[path].digest != digest]

    def note(
        self, digests: Mapping[Path, str | None], now: float, broken: Mapping[Path, str]
    ) -> None:
        """Store the digests of contents (None: a missing file).

        ``broken``: line and message of syntax errors in the changed files.
        """
        for path in self.changed(digests):
            seconds = MISSING_SECONDS if digests[path] is None else SETTLE_SECONDS
            self._contents[path] = _Contents(digests[path], broken.get(path), now + seconds)
            for node in self.users(path):
                self._changed.setdefault(node, set()).add(path)

    def reports(self, now: float) -> Iterator[UnusableFile]:
        """Yield what is not reported yet of files that cannot run."""
        for path, found in self._contents.items():
            nodes = self.users(path)
            if nodes and now >= found.settled_at and not (found.can_run or found.reported):
                found.reported = True
                yield UnusableFile(path, found.error, nodes)

    def next_reload(self, now: float) -> tuple[str, list[Path]] | None:
        """Return a node whose changed files have settled and can run, with these files."""
        for node, paths in self._changed.items():
            files = [self._contents[path] for path in paths]
            if all(now >= one.settled_at and one.can_run for one in files):
                return node, sorted(self._changed.pop(node))
        return None


class NodeWatcher:
    """Reloads nodes of one dataflow when their files change, until it is cancelled."""

    def __init__(self, dataflow_file: Path, nodes: Mapping[str, tuple[ResolvedNode, Path]]) -> None:
        """Read the files of the nodes: :meth:`run` applies what changes after this.

        Call it before the nodes start, so that a file that is saved meanwhile is not missed.
        ``nodes``: definition and working directory by id.
        """
        self.dataflow_file = dataflow_file
        self._nodes = nodes
        self._state = ReloadState()
        self._state.set_files("", _digests({dataflow_file}))
        for name, found in nodes.items():
            self._state.set_files(name, _digests(files_of(*found)))
        self._refollow = anyio.Event()

    async def run(self, reload: ReloadNode) -> None:
        """Watch until cancelled."""
        count = len(self._state.files) - 1
        output.remark(f"watching {output.counted(count, 'file')} of nodes for changes")
        self._name_unwatched(self._nodes)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._reload_in_turn, reload)
            try:
                while True:
                    await self._follow()
            except (OSError, WatchfilesRustInternalError) as error:
                output.warn(f"cannot watch files: {error}; nodes are not reloaded any more")
                tasks.cancel_scope.cancel()

    async def set_nodes(self, nodes: Mapping[str, tuple[ResolvedNode, Path]]) -> None:
        """Watch these nodes from now on: some were added, replaced or removed."""
        before = self._nodes
        self._nodes = nodes
        if nodes == before:
            return
        for name in before.keys() - nodes.keys():
            self._state.remove(name)
        for name in [name for name, one in nodes.items() if before.get(name) != one]:
            await self._scan(name)
            if name not in before:
                output.remark(f'watching the files of node "{name}" for changes')
                self._name_unwatched([name])
        self._refollow.set()

    def _name_unwatched(self, nodes: Iterable[str]) -> None:
        for name in nodes:
            if name in self._nodes and not self._state.files_of(name):
                node, _ = self._nodes[name]
                output.warn(
                    f'node "{name}" is not reloaded on save: `{node.path or node.kind}` is neither'
                    " a file beside the dataflow nor a program of an installed Python package"
                )

    async def _scan(self, name: str) -> None:
        found = self._nodes.get(name)
        if found is not None:
            files = await anyio.to_thread.run_sync(files_of, *found)
            digests = await _read_digests(files)
            if self._nodes.get(name) == found:  # otherwise it was removed or replaced meanwhile
                self._state.set_files(name, digests)

    async def _follow(self) -> None:
        """Watch the folders of all files, until the set of files changes."""
        self._refollow = anyio.Event()
        files = frozenset(self._state.files)
        folders = {path.parent for path in files if path.parent.is_dir()}
        known = {str(path): path for path in files}
        changes = awatch(
            *folders,
            watch_filter=None,  # a filter would hide the ticks while other files change
            step=STEP_MS,
            debounce=DEBOUNCE_MS,
            rust_timeout=TICK_MS,
            yield_on_timeout=True,
            stop_event=self._refollow,
            recursive=False,
        )
        begun = False
        async for batch in changes:
            # The first batch arrives after the watch has begun: read also earlier changes.
            changed = frozenset(known[path] for _, path in batch if path in known)
            await self._read(changed if begun else files)
            for report in self._state.reports(anyio.current_time()):
                self._print(report)
            begun = True

    async def _read(self, files: frozenset[Path]) -> None:
        if files:
            digests = await _read_digests(files)
            changed = self._state.changed(digests)
            used = [(path, [self._nodes[one] for one in self._users(path)]) for path in changed]
            broken = await anyio.to_thread.run_sync(_broken, used)
            self._state.note(digests, anyio.current_time(), broken)

    def _users(self, path: Path) -> list[str]:
        return [node for node in self._state.users(path) if node in self._nodes]

    def _print(self, report: UnusableFile) -> None:
        file, nodes = self._shown(report.file), _named([node for node in report.nodes if node])
        if report.error is None:
            output.warn(f"{file} was removed; {nodes}")
        else:
            output.failure(f"{file}:{report.error}; {nodes} until it is saved without the error")

    async def _reload_in_turn(self, reload: ReloadNode) -> None:
        while True:
            while (found := self._state.next_reload(anyio.current_time())) is not None:
                await self._run(*found, reload)
            await anyio.sleep(STEP_MS / 1000)

    async def _run(self, node: str, files: Sequence[Path], reload: ReloadNode) -> None:
        shown = ", ".join(self._shown(path) for path in files)
        if not node:
            output.remark(
                f"{shown} changed; to apply it, start the dataflow again or use `dora node`"
            )
            return
        output.remark(f'reloading node "{node}": {shown} changed')
        problem = await reload(node)
        if problem is not None:
            output.failure(f'node "{node}" was not reloaded: {problem}')
        else:
            output.remark(f'reloaded node "{node}"')
        before = frozenset(self._state.files)
        await self._scan(node)
        if frozenset(self._state.files) != before:
            self._refollow.set()

    def _shown(self, path: Path) -> str:
        folder = self.dataflow_file.parent
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _named(nodes: Sequence[str]) -> str:
    if not nodes:
        return "the dataflow keeps running"
    names = ", ".join(f'"{node}"' for node in nodes)
    return f"node {names} keeps running" if len(nodes) == 1 else f"nodes {names} keep running"


def _broken(files: Iterable[tuple[Path, list[tuple[ResolvedNode, Path]]]]) -> dict[Path, str]:
    """Return the syntax errors in files that nodes use."""
    found = ((path, syntax_problem(path, nodes)) for path, nodes in files)
    return {path: problem for path, problem in found if problem is not None}


async def _read_digests(files: Collection[Path]) -> dict[Path, str | None]:
    return await anyio.to_thread.run_sync(_digests, files)


def _digests(files: Collection[Path]) -> dict[Path, str | None]:
    return {path: _digest(path) for path in files}


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
