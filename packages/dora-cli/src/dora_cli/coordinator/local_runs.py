"""A coordinator and an agent in this process, which adopt the runs of `dora run` on this computer.

They use a port of 127.0.0.1, store nothing that outlives them, and start nothing. The runs continue
after them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from dora_cli import output
from dora_cli.coordinator.client import Client
from dora_cli.coordinator.errors import CoordinatorUnreachable
from dora_cli.polling import wait_until
from dora_config.access import Endpoint
from dora_config.protocol.rest import paths
from dora_config.yaml.quantities import show_age
from dora_coordinator.command import private_coordinator
from dora_daemon.agent.local_runs import FindRuns, adopt_local_runs, local_runs
from dora_daemon.process_tree.daemon_entry import away_daemons, away_runs
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root

ADOPTION_SECONDS = 5.0
"""Time for runners to answer."""
ADOPTION_POLL = 0.1


@asynccontextmanager
async def adopting(find: FindRuns, machine: str | None = None) -> AsyncIterator[Endpoint]:
    """Adopt runs for the block."""
    directory = await anyio.to_thread.run_sync(RuntimeDir.create, runtime_root())
    try:
        with _quiet("dora.coordinator", "dora.daemon"):  # the run itself prints what happens
            async with (
                private_coordinator(directory.path) as endpoint,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(adopt_local_runs, directory.path, lambda: endpoint, find, machine)
                yield endpoint
                tasks.cancel_scope.cancel()
    finally:
        directory.release()


@contextmanager
def adopted(find: FindRuns, machine: str | None = None) -> Iterator[Endpoint]:
    """Return the address of a coordinator that adopts runs during the block."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(adopting(find, machine)) as endpoint,
    ):
        yield endpoint


@contextmanager
def client_of_run(dataflow: str) -> Iterator[Client]:
    """Return a client of a coordinator that adopts a run during the block."""
    with adopted(partial(local_runs, dataflow)) as endpoint, Client(endpoint) as client:
        yield client


def client_of_this_machine(at: Endpoint) -> Client:
    """Return a client of the coordinator, or of one that adopts the runs of this machine."""
    client = Client(at)
    try:
        client.connect()
        return client
    except CoordinatorUnreachable:
        client.close()
    for one in away_daemons():
        output.remark(
            f"no connection to the coordinator at {one.coordinator} for"
            f" {show_age(one.seconds())}: this is about this machine only"
        )
    resources = ExitStack()
    with ExitStack() as begun:
        found = [entry for _, entry in away_runs()]
        machine = next((one.machine_id for one in found), None)
        client = Client(begun.enter_context(adopted(away_runs, machine)), on_close=resources.close)
        _wait_until_listed(client, {one.dataflow_id for one in found})
        resources.push(begun.pop_all())
    return client


def _wait_until_listed(client: Client, dataflows: set[str]) -> None:
    """Wait until the runners have answered, a few seconds at most."""

    def listed() -> bool:
        rows = client.get(paths.DATAFLOWS).dataflows
        return {row.uuid for row in rows if row.status != "Starting"} >= dataflows

    wait_until(listed, ADOPTION_SECONDS, every=ADOPTION_POLL)


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
