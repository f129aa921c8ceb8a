"""Delivery of code to this machine: missing files are fetched, then checked out.

Stored files are uploaded to a coordinator that has lost its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
from pydantic import ValidationError

from dora_config.access import Endpoint
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.disk_space import require_room
from dora_config.errors import DoraError
from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import CodeSet, file_path
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.transfers import DownloadFailed, Downloads, StoredFile, Uploads
from dora_daemon.code.checkout import check_out, growth, merged
from dora_daemon.daemon_threads import run_in_daemon_thread

MAX_AGE: Final = 60 * 24 * 3600.0
"""Seconds for which code is stored after its last use, so that earlier versions can run again."""
MAX_BYTES: Final = 8 << 30
"""Size of the store."""

logger = logging.getLogger("dora.daemon")


class CodeMissing(DoraError):
    """Code of a node is not on this machine and cannot be fetched."""


class CodeNotDelivered(DoraError):
    """The code of a node could not be written to its working directory."""


@dataclass(slots=True)
class CodeDelivery:
    """Runs one delivery at a time, because parts may share a directory."""

    store: FileStore
    endpoint: Callable[[], Endpoint]
    _turn: anyio.Lock = field(default_factory=anyio.Lock)
    _thread_turn: threading.Lock = field(default_factory=threading.Lock)
    """Held by the thread, because that of a cancelled delivery continues until its next check."""
    _uploads: anyio.Lock = field(default_factory=anyio.Lock)

    async def deliver(
        self, spec: DataflowSpec, base: Path, running: Collection[str] = ()
    ) -> dict[str, CodeSet]:
        """Check out code below ``base``; return it by node id. Raises CodeNotDelivered.

        ``running``: workspaces of dataflows whose files are not replaced.
        """
        if not any(node.id in spec.code for node in spec.resolved.nodes):
            return {}
        cancelled = threading.Event()
        async with self._turn:
            try:
                return await run_in_daemon_thread(
                    lambda: self._deliver(spec, base, running, cancelled.is_set)
                )
            finally:
                cancelled.set()

    def _deliver(
        self,
        spec: DataflowSpec,
        base: Path,
        running: Collection[str],
        cancelled: Callable[[], bool],
    ) -> dict[str, CodeSet]:
        delivered: dict[str, CodeSet] = {}
        by_directory: dict[Path, list[CodeSet]] = {}
        with self._thread_turn:
            nodes = {node.id: node for node in spec.resolved.nodes}
            for node in (nodes[node_id] for node_id in spec.code if node_id in nodes):
                directory = node_directory(base, node)
                try:
                    code = self._obtain(node, spec.code[node.id], directory, cancelled)
                except (DoraError, OSError, ValidationError) as problem:
                    raise CodeNotDelivered(
                        f'cannot bring the code of node "{node.id}" to {directory}: {problem}'
                    ) from problem
                delivered[node.id] = code
                by_directory.setdefault(directory, []).append(code)
            for directory, parts in by_directory.items():
                if cancelled():  # a later delivery may be waiting
                    raise CodeNotDelivered(f"cannot write code to {directory}: cancelled")
                try:
                    owner = _owner(spec.workspace)
                    others = map(_owner, running)
                    check_out(merged(parts), directory, self.store, owner, others)
                except (OSError, DoraError) as problem:
                    text = f"cannot write code to {directory}: {problem}"
                    raise CodeNotDelivered(text) from problem
            self._collect()
        return delivered

    def find(self, digests: Iterable[str]) -> list[str]:
        """Return the files that are in the store."""
        return [digest for digest in digests if self.store.use(digest) is not None]

    async def upload(self, digests: Sequence[str]) -> tuple[list[str], str | None]:
        """Send files to the coordinator; return those that were sent, and why others were not."""
        sent: list[str] = []

        def send() -> None:
            with Uploads(self.endpoint()) as uploads:
                for digest in digests:
                    uploads.send(digest, self.store.path(digest))
                    sent.append(digest)

        async with self._uploads:  # the same files may be requested again meanwhile
            try:
                await run_in_daemon_thread(send)
            except (DoraError, OSError) as problem:
                return sent, str(problem)
        return sent, None

    def _collect(self) -> None:
        try:
            self.store.collect(max_age=MAX_AGE, max_bytes=MAX_BYTES)
        except OSError as problem:
            logger.warning("cannot remove unused code from %s: %s", self.store.root, problem)

    def _obtain(
        self, node: ResolvedNode, digest: str, directory: Path, cancelled: Callable[[], bool]
    ) -> CodeSet:
        """Return the code with this digest after all its files are in the store."""
        self._fetch([digest], cancelled)
        code = CodeSet.model_validate_json(self.store.path(digest).read_bytes())
        sizes = {file.sha256: file.size for file in code.files}
        lacking = sum(sizes[digest] for digest in self.store.missing(sizes))
        require_room([(self.store.root, lacking), (directory, growth(code, directory))])
        self._fetch(sorted(sizes), cancelled, code=digest)
        return code

    def _fetch(
        self, digests: Iterable[str], cancelled: Callable[[], bool], *, code: str = ""
    ) -> None:
        """Add missing files to the store. Raises CodeMissing, Untrusted and AccessError.

        ``code``: digest of the list of files, all of which the coordinator then fetches at once.
        """
        if not (missing := self.store.missing(digests)):
            return
        with Downloads(self.endpoint(), cancelled) as downloads:
            for digest in missing:
                try:
                    downloads.download(file_path(digest, code), StoredFile(self.store, digest))
                except DownloadFailed as problem:
                    if problem.status != 404:
                        raise
                    raise CodeMissing(
                        f"neither the coordinator at {self.endpoint()} nor a machine that is "
                        "connected to it has the code; start the dataflow again where its files are"
                    ) from problem
                except FileRefused as problem:
                    raise CodeMissing(f"{problem}; start the dataflow again") from problem
                except OSError as problem:
                    place = problem.filename or self.store.root
                    raise CodeMissing(f"{place}: {problem.strerror}") from problem


def _owner(workspace: str) -> str:
    return workspace or "dataflow"


def node_directory(base: Path, node: ResolvedNode) -> Path:
    """Return the base of a node's relative paths: ``deploy.working_dir`` below ``base``."""
    return base / (node.deploy.working_dir or "")
