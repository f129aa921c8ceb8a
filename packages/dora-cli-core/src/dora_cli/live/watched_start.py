"""Reload on save for `dora start`: changes are sent to the coordinator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from dora_cli import output
from dora_cli.coordinator.calls import describe as describe_dataflow
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.errors import describe
from dora_cli.live.sending import reload
from dora_cli.live.watching import GRACE, NodeWatcher
from dora_cli.shipping.sending import source_directory
from dora_config.access import Endpoint
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import DoraError
from dora_config.protocol.dataflow import DataflowSpec

REFRESH_SECONDS = 2.0
"""Interval at which nodes that were added, replaced or removed are found."""


def make_watcher(path: Path, spec: DataflowSpec) -> NodeWatcher:
    """Return a watcher for a dataflow that will be started; it reads the files now."""
    file = path.absolute()
    return NodeWatcher(file, _watched(spec.resolved.nodes, file.parent.resolve()))


@contextmanager
def watching(endpoint: Endpoint, uuid: str, watcher: NodeWatcher) -> Iterator[None]:
    """Reload nodes of a dataflow on daemons when their files change, on a thread of its own."""
    base = watcher.dataflow_file.parent.resolve()

    async def reload_node(name: str) -> str | None:
        call = partial(_reload, endpoint, uuid, name)
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)

    async def watch() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_follow_nodes, watcher, endpoint, uuid, base)
            await watcher.run(reload_node)
            tasks.cancel_scope.cancel()

    with start_blocking_portal() as portal:
        running = portal.start_task_soon(watch)
        running.add_done_callback(_warn_of_failure)
        try:
            yield
        finally:
            running.cancel()


def _warn_of_failure(watching: Future[None]) -> None:
    error = None if watching.cancelled() else watching.exception()
    if error is not None:
        output.warn(f"nodes are not reloaded any more: {describe(error)[0]}")


def _watched(nodes: Iterable[ResolvedNode], base: Path) -> dict[str, tuple[ResolvedNode, Path]]:
    """Return definition and working directory of each node that dora starts."""
    return {node.id: (node, source_directory(node, base)) for node in nodes if not node.is_dynamic}


async def _follow_nodes(watcher: NodeWatcher, endpoint: Endpoint, uuid: str, base: Path) -> None:
    """Watch the present nodes, until cancelled; wait for a coordinator that was lost."""
    while True:
        with suppress(DoraError):
            nodes = await anyio.to_thread.run_sync(_nodes, endpoint, uuid, abandon_on_cancel=True)
            await watcher.set_nodes(_watched(nodes, base))
        await anyio.sleep(REFRESH_SECONDS)


def _nodes(endpoint: Endpoint, uuid: str) -> tuple[ResolvedNode, ...]:
    with CoordinatorClient(endpoint) as client:
        return describe_dataflow(client, uuid).spec.resolved.nodes


def _reload(endpoint: Endpoint, uuid: str, name: str) -> str | None:
    try:
        with CoordinatorClient(endpoint) as client:
            reload(client, uuid, name, GRACE)
    except (DoraError, OSError) as error:  # a file may be replaced while it is sent
        return describe(error)[0]
    return None
