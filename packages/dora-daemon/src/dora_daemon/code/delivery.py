"""Has the code of a part's nodes on this machine: what is missing is fetched, then laid out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from pydantic import ValidationError

from dora_config.access import Endpoint
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.disk_space import DiskFull, require_room
from dora_config.errors import DoraError
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import CodeSet
from dora_config.protocol.dataflow import DataflowSpec
from dora_daemon.code.checkout import growth, lay_out, merged
from dora_daemon.code.fetching import CodeMissing, Fetcher

MAX_AGE: Final = 60 * 24 * 3600.0
"""Seconds for which code is kept after its last use, so that an earlier version is back at once."""
MAX_BYTES: Final = 8 << 30
"""Of all code that is kept beside what is laid out."""


class CodeNotDelivered(DoraError):
    """The code of a node is not where it is to run; ``str()`` names node, place and reason."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """By node id: what was laid out; bytes that came over the network, files that were written."""

    sets: Mapping[str, CodeSet]
    fetched: int = 0
    written: int = 0


@dataclass(slots=True)
class Delivery:
    """One at a time: two parts may share a directory."""

    store: FileStore
    endpoint: Callable[[], Endpoint]
    _turn: anyio.Lock = field(default_factory=anyio.Lock)
    _at_work: threading.Lock = field(default_factory=threading.Lock)
    """Of the thread: one whose delivery was cancelled goes on for a while."""

    async def deliver(self, spec: DataflowSpec, base: Path) -> Delivered:
        """Lay out the nodes of ``spec`` that have code below ``base``; does nothing for others.

        Raises CodeNotDelivered.
        """
        nodes = [node for node in spec.resolved.nodes if node.id in spec.code]
        if not nodes:
            return Delivered({})
        async with self._turn:
            return await anyio.to_thread.run_sync(
                self._alone, spec, nodes, base, abandon_on_cancel=True
            )

    def _alone(self, spec: DataflowSpec, nodes: list[ResolvedNode], base: Path) -> Delivered:
        with self._at_work:
            return self._deliver(spec, nodes, base)

    def _deliver(self, spec: DataflowSpec, nodes: list[ResolvedNode], base: Path) -> Delivered:
        sets: dict[str, CodeSet] = {}
        by_directory: dict[Path, list[CodeSet]] = {}
        fetched = written = 0
        for node in nodes:
            directory = node_directory(base, node)
            try:
                http = node.deploy.distribute == "http"
                code, size = self._have(spec.code[node.id], directory, http)
            except (CodeMissing, DiskFull, FileRefused, OSError, ValidationError) as problem:
                raise CodeNotDelivered(
                    f'the code of node "{node.id}" could not be put into {directory}: {problem}'
                ) from problem
            fetched += size
            sets[node.id] = code
            by_directory.setdefault(directory, []).append(code)
        owner = spec.workspace or "dataflow"
        for directory, parts in by_directory.items():
            try:
                written += lay_out(merged(parts), directory, self.store, owner)
            except (OSError, DoraError) as problem:
                raise CodeNotDelivered(f"code could not be put into {directory}: {problem}") from (
                    problem
                )
        self.store.collect(max_age=MAX_AGE, max_bytes=MAX_BYTES)
        return Delivered(sets, fetched, written)

    def _have(self, digest: str, directory: Path, may_fetch: bool) -> tuple[CodeSet, int]:
        """The list with that digest, all of whose files are here now, and the bytes fetched."""
        fetcher = Fetcher(self.endpoint(), self.store)
        size = 0
        if may_fetch:
            size += fetcher.fetch([digest])
        listed = self.store.use(digest)
        if listed is None:
            raise CodeMissing(
                "it was not sent to this machine (`distribute: scp`): start the dataflow again "
                "from where its files are"
            )
        code = CodeSet.model_validate_json(listed.read_bytes())
        wanted = {file.sha256 for file in code.files}
        sizes = {file.sha256: file.size for file in code.files}
        lacking = sum(sizes[digest] for digest in self.store.missing(wanted))
        require_room([(self.store.root, lacking), (directory, growth(code, directory))])
        if may_fetch:
            size += fetcher.fetch(sorted(wanted))
        elif missing := self.store.missing(wanted):
            raise CodeMissing(f"{len(missing)} of its files were not sent to this machine")
        return code, size


def node_directory(base: Path, node: ResolvedNode) -> Path:
    """Where a node's relative paths start; ``deploy.working_dir`` is joined to ``base``."""
    return base / (node.deploy.working_dir or "")
