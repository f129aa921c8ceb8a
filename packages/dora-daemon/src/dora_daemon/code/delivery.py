"""Delivery of code to this machine: missing files are fetched, then checked out."""

from __future__ import annotations

import threading
from collections.abc import Callable
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
from dora_daemon.code.checkout import check_out, growth, merged
from dora_daemon.code.fetching import CodeMissing, Fetcher

MAX_AGE: Final = 60 * 24 * 3600.0
"""Seconds after its last use for which code is stored, for a return to an earlier version."""
MAX_BYTES: Final = 8 << 30
"""Size of the store."""


class CodeNotDelivered(DoraError):
    """The code of a node could not be brought to its working directory."""


@dataclass(slots=True)
class Delivery:
    """Runs one delivery at a time, because parts may share a directory."""

    store: FileStore
    endpoint: Callable[[], Endpoint]
    _turn: anyio.Lock = field(default_factory=anyio.Lock)
    _thread_turn: threading.Lock = field(default_factory=threading.Lock)
    """The thread of a cancelled delivery continues for a while."""

    async def deliver(self, spec: DataflowSpec, base: Path) -> dict[str, CodeSet]:
        """Check out code below ``base``; return it by node id. Raises CodeNotDelivered."""
        if not any(node.id in spec.code for node in spec.resolved.nodes):
            return {}
        async with self._turn:
            return await anyio.to_thread.run_sync(self._deliver, spec, base, abandon_on_cancel=True)

    def _deliver(self, spec: DataflowSpec, base: Path) -> dict[str, CodeSet]:
        delivered: dict[str, CodeSet] = {}
        by_directory: dict[Path, list[CodeSet]] = {}
        with self._thread_turn:
            for node in spec.resolved.nodes:
                if node.id not in spec.code:
                    continue
                directory = node_directory(base, node)
                try:
                    http = node.deploy.distribute == "http"
                    code = self._obtain(spec.code[node.id], directory, http)
                except (CodeMissing, DiskFull, FileRefused, OSError, ValidationError) as problem:
                    raise CodeNotDelivered(
                        f'cannot write the code of node "{node.id}" to {directory}: {problem}'
                    ) from problem
                delivered[node.id] = code
                by_directory.setdefault(directory, []).append(code)
            for directory, parts in by_directory.items():
                try:
                    owner = spec.workspace or "dataflow"
                    check_out(merged(parts), directory, self.store, owner)
                except (OSError, DoraError) as problem:
                    text = f"cannot write code to {directory}: {problem}"
                    raise CodeNotDelivered(text) from problem
            self.store.collect(max_age=MAX_AGE, max_bytes=MAX_BYTES)
        return delivered

    def _obtain(self, digest: str, directory: Path, may_fetch: bool) -> CodeSet:
        """Return the code with this digest after all its files are in the store."""
        fetcher = Fetcher(self.endpoint(), self.store)
        if may_fetch:
            fetcher.fetch([digest])
        listed = self.store.use(digest)
        if listed is None:
            raise CodeMissing(
                "it was not sent to this machine (`distribute: scp`); start the dataflow again "
                "where its files are"
            )
        code = CodeSet.model_validate_json(listed.read_bytes())
        wanted = {file.sha256 for file in code.files}
        sizes = {file.sha256: file.size for file in code.files}
        lacking = sum(sizes[digest] for digest in self.store.missing(wanted))
        require_room([(self.store.root, lacking), (directory, growth(code, directory))])
        if may_fetch:
            fetcher.fetch(sorted(wanted))
        elif missing := self.store.missing(wanted):
            raise CodeMissing(f"{len(missing)} of its files were not sent to this machine")
        return code


def node_directory(base: Path, node: ResolvedNode) -> Path:
    """Return where a node's relative paths start: ``deploy.working_dir`` below ``base``."""
    return base / (node.deploy.working_dir or "")
