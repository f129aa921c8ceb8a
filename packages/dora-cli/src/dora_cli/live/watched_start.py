"""Reload on save for `dora start`: changes are sent to the coordinator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from dora_cli.coordinator.client import Client
from dora_cli.live.sending import reload
from dora_cli.live.watching import GRACE, NodeWatcher
from dora_cli.shipping.collection import source_directory
from dora_config.access import Endpoint
from dora_config.errors import DoraError
from dora_config.protocol.dataflow import DataflowSpec


@contextmanager
def watching(endpoint: Endpoint, uuid: str, path: Path, spec: DataflowSpec) -> Iterator[None]:
    """Reload nodes of a dataflow on daemons when their files change, on a thread of its own."""
    base = path.absolute().parent.resolve()
    nodes = {node.id: (node, source_directory(node, base)) for node in spec.resolved.nodes}
    static = {name: one for name, one in nodes.items() if not one[0].is_dynamic}

    async def reload_node(name: str) -> str | None:
        call = partial(_reload, endpoint, uuid, name)
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)

    with start_blocking_portal() as portal:
        running = portal.start_task_soon(NodeWatcher(path.absolute(), static, reload_node).run)
        try:
            yield
        finally:
            running.cancel()


def _reload(endpoint: Endpoint, uuid: str, name: str) -> str | None:
    try:
        with Client(endpoint) as client:
            reload(client, uuid, name, GRACE)
    except DoraError as error:
        return str(error)
    return None
