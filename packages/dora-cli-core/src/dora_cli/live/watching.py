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
"""Milliseconds between two checks of due actions while no file changes."""

GRACE = 5.0
"""Seconds from STOP to SIGTERM for the process of a replaced node."""

ReloadNode = Callable[[str], Awaitable[str | None]]
"""Reloads a node; returns why it was not reloaded."""

SETTLE_SECONDS = 0.15
"""Seconds without a change until a node is reloaded."""
MISSING_SECONDS = 2.0
"""Seconds until a removed file is reported; editors often replace files by removing them."""


@dataclass(frozen=True, slots=True)
class NodeReload:
    """Run the new contents of these files in a node."""

    node: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ReportMissing:
    """A file of a node was removed; the node keeps running."""

    node: str
    file: Path


@dataclass(frozen=True, slots=True)
class ReportBroken:
    """A file of nodes has a syntax error; they keep their old code until it is corrected."""

    file: Path
    problem: str
    nodes: tuple[str, ...]


Command = NodeReload | ReportMissing | ReportBroken


class ReloadState:
    """The files of all nodes, and what has changed in them."""

    def __init__(self) -> None:
        self._files: dict[str, frozenset[Path]] = {}
        self._digests: dict[Path, str | None] = {}
        self._changed: dict[str, dict[Path, float]] = {}
        """Changed files of each node, and when."""
        self._reloading: set[str] = set()
        self._reported: set[tuple[str, Path]] = set()
        self._broken: dict[Path, str] = {}
        """Line and message of the syntax errors in changed files."""
        self._reported_broken: set[Path] = set()

    def set_files(self, node: str, digests: Mapping[Path, str | None]) -> None:
        """Set the files of a node; those that are new to it count as unchanged."""
        watched = self.files
        self._files[node] = frozenset(digests)
        for path, digest in digests.items():
            if path not in watched:
                self._digests[path] = digest

    def remove(self, node: str) -> None:
        """Ignore changes of the files of a node from now on."""
        self._files.pop(node, None)
        self._changed.pop(node, None)
        self._reported = {pair for pair in self._reported if pair[0] != node}

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
        return [path for path, digest in digests.items() if self._digests.get(path) != digest]

    def note(
        self, digests: Mapping[Path, str | None], now: float, broken: Mapping[Path, str]
    ) -> None:
        """Store the digests of contents (None: a missing file); ``now``: a monotonic clock.

        ``broken``: line and message of syntax errors in the changed files.
        """
        for path in self.changed(digests):
            self._digests[path] = digests[path]
            self._broken.pop(path, None)
            self._reported_broken.discard(path)
            if path in broken:
                self._broken[path] = broken[path]
            for node, files in self._files.items():
                if path in files:
                    self._changed.setdefault(node, {})[path] = now
                    self._reported.discard((node, path))

    def ended(self, node: str) -> None:
        """Record the end of a reload, successful or not."""
        self._reloading.discard(node)

    def _missing(self, node: str) -> list[Path]:
        return [path for path in self._changed[node] if self._digests[path] is None]

    def _due_at(self, node: str) -> float | None:
        changed = self._changed[node]
        broken = [path for path in changed if path in self._broken]
        if broken:
            new = [path for path in broken if path not in self._reported_broken]
            return max(changed[path] for path in new) + SETTLE_SECONDS if new else None
        missing = [path for path in self._missing(node) if (node, path) not in self._reported]
        if missing:
            return max(changed[path] for path in missing) + MISSING_SECONDS
        if self._missing(node):
            return None  # reported: wait for the file
        return max(changed.values()) + SETTLE_SECONDS

    def due(self, now: float) -> Iterator[Command]:
        """Yield the actions that are due."""
        for node in list(self._changed):
            due = self._due_at(node)
            if node in self._reloading or due is None or now < due:
                continue
            broken = [path for path in self._changed[node] if path in self._broken]
            if broken:
                for path in broken:
                    if path not in self._reported_broken:
                        self._reported_broken.add(path)
                        yield ReportBroken(path, self._broken[path], self.users(path))
                continue
            missing = self._missing(node)
            if missing:
                for path in missing:
                    self._reported.add((node, path))
                    yield ReportMissing(node, path)
                continue
            files = tuple(sorted(self._changed.pop(node)))
            self._reloading.add(node)
            yield NodeReload(node, files)


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
        self._waiting: list[NodeReload] = []
        self._queued = anyio.Event()
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
            begun = True

    async def _read(self, files: frozenset[Path]) -> None:
        if files:
            digests = await _read_digests(files)
            changed = self._state.changed(digests)
            used = [(path, [self._nodes[one] for one in self._users(path)]) for path in changed]
            broken = await anyio.to_thread.run_sync(_broken, used)
            self._state.note(digests, anyio.current_time(), broken)
        self._execute()

    def _users(self, path: Path) -> list[str]:
        return [node for node in self._state.users(path) if node in self._nodes]

    def _execute(self) -> None:
        for command in self._state.due(anyio.current_time()):
            match command:
                case NodeReload():
                    self._waiting.append(command)
                    self._queued.set()
                case ReportMissing(node=node, file=file):
                    who = f'node "{node}" keeps running' if node else "the dataflow keeps running"
                    output.warn(f"{self._shown(file)} was removed; {who}")
                case ReportBroken(file=file, problem=problem, nodes=nodes):
                    output.failure(
                        f"{self._shown(file)}:{problem}; {_named(nodes)} until it is saved without"
                        " the error"
                    )

    async def _reload_in_turn(self, reload: ReloadNode) -> None:
        while True:
            while self._waiting:
                command = self._waiting.pop(0)
                await self._run(command, reload)
                self._state.ended(command.node)
                self._execute()
            self._queued = anyio.Event()
            await self._queued.wait()

    async def _run(self, command: NodeReload, reload: ReloadNode) -> None:
        shown = ", ".join(self._shown(path) for path in command.files)
        if not command.node:
            output.remark(
                f"{shown} changed; to apply it, start the dataflow again or use `dora node`"
            )
            return
        output.remark(f'reloading node "{command.node}": {shown} changed')
        problem = await reload(command.node)
        if problem is not None:
            output.failure(f'node "{command.node}" was not reloaded: {problem}')
        else:
            output.remark(f'reloaded node "{command.node}"')
        before = frozenset(self._state.files)
        await self._scan(command.node)
        if frozenset(self._state.files) != before:
            self._refollow.set()

    def _shown(self, path: Path) -> str:
        folder = self.dataflow_file.parent
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _named(nodes: Sequence[str]) -> str:
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
