"""Runners of this daemon: started, adopted, and reached by dataflow id."""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from dora_config.errors import DoraError
from dora_config.protocol.envelope import clean_lines, clean_text
from dora_config.protocol.runner import GetStatus, Refusal, RunnerReply, RunnerRequest, RunnerStatus
from dora_daemon.agent.events import RunnerEnded, RunnerNotice
from dora_daemon.agent.linking import LinkSetup
from dora_daemon.agent.node_paths import LocalMachine
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.client import RunnerClient
from dora_daemon.agent.runners.directory import RunnerDirectory
from dora_daemon.agent.runners.spare import SpareRunner

logger = logging.getLogger("dora.daemon")


class NotAnswered(DoraError):
    """A runner refused a request, or did not answer it."""


@dataclass(eq=False)
class RunnerRegistry:
    """Runners of this machine, with one client and one task each."""

    _tasks: TaskGroup
    _root: Path
    _machine: Callable[[], LocalMachine]
    _post: Callable[[RunnerNotice], None]
    _changed: Callable[[], None]
    """Called when :meth:`statuses` has other states or processes than before."""
    _links: LinkSetup
    _clients: dict[str, RunnerClient] = field(default_factory=dict, init=False)
    spare: SpareRunner = field(default_factory=SpareRunner, init=False)

    def start(self, record: PartRecord) -> None:
        """Spawn the runner of a part."""
        if record.recovers is not None:
            nodes = ", ".join(node.id for node in record.spec.resolved.nodes)
            text = "dataflow %s: starting %s again (recovery): %s"
            label = record.spec.name or record.dataflow_id
            logger.warning(text, clean_text(label), nodes, clean_lines(record.recovers))
        client = self._new(record.dataflow_id)
        start = partial(client.start, record, self._root, self._machine(), self._links)
        self._tasks.start_soon(_run, client, start)

    def adopt(self, record: PartRecord) -> None:
        """Connect to a runner that this daemon process has not started."""
        logger.info("adopting the runner of dataflow %s", record.dataflow_id)
        directory = RunnerDirectory(Path(record.runtime_dir), record.runtime_token)
        client = self._new(record.dataflow_id)
        attend = partial(client.attend, directory, borrowed=record.borrowed)
        self._tasks.start_soon(_run, client, attend)

    def send(self, dataflow_id: str, request: RunnerRequest) -> None:
        """Send a request, whose effects the runner reports."""
        if dataflow_id in self._clients:
            self._clients[dataflow_id].send(request)

    async def call(self, dataflow_id: str, request: RunnerRequest) -> RunnerReply:
        """Return the reply of a runner, which may be a Refusal. Raises NotAnswered."""
        client = self._clients.get(dataflow_id)
        if client is None:
            text = "the dataflow has ended, or has no nodes on this machine"
            return Refusal(message=text, ended=True)
        answered = anyio.Event()
        answer: list[tuple[RunnerReply | None, str | None]] = []

        def on_reply(reply: RunnerReply | None, problem: str | None) -> None:
            answer.append((reply, problem))
            answered.set()

        client.send(request, on_reply)
        await answered.wait()
        reply, problem = answer[0]
        if reply is None:
            raise NotAnswered(problem or "the runner did not answer")
        return reply

    async def ask(self, dataflow_id: str, request: RunnerRequest) -> RunnerReply:
        """Return the reply of a runner. Raises NotAnswered, also if it refuses the request."""
        reply = await self.call(dataflow_id, request)
        if isinstance(reply, Refusal):
            raise NotAnswered(reply.message)
        return reply

    def signal(self, dataflow_id: str, number: signal.Signals) -> None:
        if dataflow_id in self._clients:
            self._clients[dataflow_id].signal(number)

    def refresh(self) -> None:
        """Request the status of all runners for the next :meth:`statuses`."""
        for client in self._clients.values():
            client.kill_if_directory_removed()
            client.send(GetStatus())

    def statuses(self) -> list[RunnerStatus]:
        """Return the last status of each runner that has sent one."""
        found = (client.status for client in self._clients.values())
        return [status for status in found if status is not None]

    def connected(self) -> list[str]:
        """Return the dataflows whose runners have answered before or accepted a connection."""
        found = self._clients.items()
        return [one for one, client in found if client.status is not None or client.is_connected]

    def _new(self, dataflow_id: str) -> RunnerClient:
        mark = f"{dataflow_id}@{self._machine().machine_id or ''}"
        former = self._clients.get(dataflow_id)
        client = RunnerClient(dataflow_id, mark, self._deliver, self._changed, self.spare, former)
        self._clients[dataflow_id] = client
        return client

    def _deliver(self, client: RunnerClient, event: RunnerNotice) -> None:
        """Post an event, unless the client has been replaced."""
        if self._clients.get(client.dataflow_id) is not client:
            return
        if isinstance(event, RunnerEnded):
            del self._clients[client.dataflow_id]
        self._post(event)


async def _run(client: RunnerClient, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    finally:
        client.has_ended.set()
