"""A coordinator and an agent in this process, which adopt the runs of `dora run` on this computer.

They use a port of 127.0.0.1, start no processes, and remove their files when they end. The runs
keep running afterwards.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.polling import wait_until
from dora_config.access import Endpoint
from dora_config.protocol.daemon import StopPart
from dora_config.protocol.envelope import Message, Request
from dora_config.protocol.reports import (
    DataflowList,
    DataflowSummary,
    Ended,
    EndedDataflow,
    ListDataflows,
    StopDataflow,
)
from dora_config.yaml.quantities import show_age
from dora_coordinator.command import private_coordinator
from dora_daemon.agent.local_runs import FindRuns, adopt_local_runs, local_runs
from dora_daemon.process_tree.daemon_entry import (
    DaemonEntry,
    WaitingPart,
    away_daemons,
    away_runs,
    request_stop,
)
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root
from dora_node_api.protocol.runner_index import IndexEntry

A = TypeVar("A", bound=Message)

ADOPTION_SECONDS = 5.0
"""Limit in seconds for runners to answer."""
ADOPTION_POLL = 0.1
"""Seconds between two requests while a runner is adopted or left."""
STOP_SECONDS = 5.0
"""Limit in seconds for a daemon to store a stop."""


@asynccontextmanager
async def adopting(
    find: FindRuns, machines: Iterable[str | None] | None = None
) -> AsyncIterator[Endpoint]:
    """Adopt runs during the block; ``machines``: ids of their machines, with one agent for each."""
    directory = await anyio.to_thread.run_sync(RuntimeDir.create, runtime_root())
    try:
        with _quiet("dora.coordinator", "dora.daemon"):  # the run prints its own events
            async with (
                private_coordinator(directory.path) as endpoint,
                anyio.create_task_group() as tasks,
            ):
                for machine in [None] if machines is None else machines:
                    found = find if machines is None else partial(_of_machine, find, machine)
                    serve = partial(adopt_local_runs, directory.path, lambda: endpoint)
                    tasks.start_soon(serve, found, machine)
                yield endpoint
                tasks.cancel_scope.cancel()
    finally:
        directory.release()


@contextmanager
def adopted(find: FindRuns, machines: Iterable[str | None] | None = None) -> Iterator[Endpoint]:
    """Return the address of a coordinator that adopts runs during the block, as `adopting`."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(adopting(find, machines)) as endpoint,
    ):
        yield endpoint


@contextmanager
def client_of_run(dataflow: str) -> Iterator[CoordinatorClient]:
    """Return a client of a coordinator that adopts a run during the block."""
    with adopted(partial(local_runs, dataflow)) as endpoint, CoordinatorClient(endpoint) as client:
        yield client


def client_of_this_machine() -> CoordinatorClient:
    """Return a client of a coordinator that adopts the runs of this machine."""
    daemons = away_daemons()
    for _, one in daemons:
        output.remark(
            f"no connection to the coordinator at {one.coordinator} for"
            f" {show_age(one.seconds())}: this is about this machine only"
        )
    resources = ExitStack()
    with ExitStack() as begun:
        found = [entry for _, entry in away_runs()]
        machines = {one.machine_id for one in found}
        private = begun.enter_context(adopted(away_runs, machines))
        client = _ClientOfThisMachine(private, daemons, on_close=resources.close)
        _wait_until_listed(client, Counter(one.dataflow_id for one in found))
        resources.push(begun.pop_all())
    return client


def _of_machine(find: FindRuns, machine: str | None) -> list[tuple[Path, IndexEntry]]:
    return [(path, entry) for path, entry in find() if entry.machine_id == machine]


class _ClientOfThisMachine(CoordinatorClient):
    """Client whose lists and stops include parts that wait for their start."""

    def __init__(
        self,
        at: Endpoint,
        daemons: list[tuple[Path, DaemonEntry]],
        *,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(at, on_close=on_close)
        self._daemons = daemons

    def request(self, request: Request[A], *, timeout: float | None = None) -> A:
        waiting = self._request_stop(request) if isinstance(request, StopDataflow) else []
        ended = [EndedDataflow(uuid=p.dataflow_id, name=p.name, ok=True) for p in waiting]
        try:
            answer = super().request(request, timeout=timeout)
        except RequestFailed as problem:
            if not ended or problem.code not in ("not_found", "nothing_runs"):
                raise
            return request.answer_type().model_validate({"dataflows": ended})
        if isinstance(answer, Ended):
            return answer.model_copy(update={"dataflows": (*answer.dataflows, *ended)})
        if isinstance(answer, DataflowList):
            return answer.model_copy(update={"dataflows": (*answer.dataflows, *self._waiting())})
        return answer

    def _waiting(self) -> list[DataflowSummary]:
        return [
            DataflowSummary(
                uuid=part.dataflow_id,
                name=part.name,
                status="Recovering",
                reason=part.text(),
                nodes=part.nodes,
            )
            for _, one in self._daemons
            for part in one.waiting
        ]

    def _request_stop(self, wanted: StopDataflow) -> list[WaitingPart]:
        """Let daemons store the stop, so that it survives a power cut; return the waiting parts."""
        running = [
            (root, one.instance, WaitingPart(entry.dataflow_id, entry.name, 0, None), False)
            for root, one in self._daemons
            for _, entry in away_runs()
            if entry.machine_id == one.machine_id
        ]
        waiting = [
            (root, one.instance, part, True) for root, one in self._daemons for part in one.waiting
        ]
        ids = {part.dataflow_id for _, _, part, _ in (*running, *waiting)}
        named = wanted.dataflow
        chosen = [
            one
            for one in (*running, *waiting)
            if wanted.all
            or named in (one[2].dataflow_id, one[2].name)
            or (named is None and len(ids) == 1)
        ]
        requests = [
            request_stop(
                root,
                instance,
                StopPart(dataflow_id=part.dataflow_id, grace=wanted.grace, force=wanted.force),
            )
            for root, instance, part, _ in chosen
        ]
        wait_until(lambda: not any(map(Path.exists, requests)), STOP_SECONDS, every=ADOPTION_POLL)
        return [part for _, _, part, waits in chosen if waits]


def _wait_until_listed(client: CoordinatorClient, parts: Counter[str]) -> None:
    """Wait until the runners of these dataflows have answered, a few seconds at most."""

    def listed() -> bool:
        rows = client.request(ListDataflows()).dataflows
        return parts <= Counter(
            {row.uuid: len(row.daemons) for row in rows if row.status != "Starting"}
        )

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
