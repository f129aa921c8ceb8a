"""A coordinator and an agent in this process, which adopt the runs of `dora run` on this computer.

They use a port of 127.0.0.1, store nothing that outlives them, and start nothing. The runs continue
after them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from dora_cli.coordinator.client import Client
from dora_config.access import Endpoint
from dora_coordinator.command import private_coordinator
from dora_daemon.agent.local_runs import adopt_local_runs
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root


@asynccontextmanager
async def adopting(dataflow: str | None) -> AsyncIterator[Endpoint]:
    """Adopt runs for the block; ``dataflow``: only the one with this id."""
    directory = await anyio.to_thread.run_sync(RuntimeDir.create, runtime_root())
    try:
        with _quiet("dora.coordinator", "dora.daemon"):  # the run itself prints what happens
            async with (
                private_coordinator(directory.path) as endpoint,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(adopt_local_runs, directory.path, lambda: endpoint, dataflow)
                yield endpoint
                tasks.cancel_scope.cancel()
    finally:
        directory.release()


@contextmanager
def client_of_run(dataflow: str) -> Iterator[Client]:
    """Return a client of a coordinator that adopts a run during the block."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(adopting(dataflow)) as endpoint,
        Client(endpoint) as client,
    ):
        yield client


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
