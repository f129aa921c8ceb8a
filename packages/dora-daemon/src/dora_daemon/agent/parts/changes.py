"""Changes of running parts: code and links are prepared, then the runner changes its nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import anyio

from dora_config.errors import DoraError
from dora_config.protocol import runner as protocol
from dora_config.protocol.calls import ChangePart, LinkPart
from dora_daemon.agent.events import Event, NodeNotAdded, NodesRead
from dora_daemon.agent.linking import LinkError, LinkSetup
from dora_daemon.agent.node_paths import LocalMachine, base_directory, deliver, locate, log_dir
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.registry import NotAnswered, RunnerRegistry

logger = logging.getLogger("dora.daemon")


class ChangeRefused(DoraError):
    """A part cannot be changed; the text says why."""


@dataclass(eq=False)
class PartChanges:
    """One change of a part at a time."""

    _machine: Callable[[], LocalMachine]
    _runners: RunnerRegistry
    _links: LinkSetup
    _record: Callable[[str], PartRecord | None]
    """Returns the record of a live part."""
    _post: Callable[[Event], None]
    _turns: WeakValueDictionary[str, anyio.Lock] = field(
        default_factory=WeakValueDictionary, init=False
    )
    """Locks by dataflow, each kept by the changes that hold it or wait for it."""

    async def change(self, message: ChangePart) -> None:
        """Change a part. Raises DoraError: the reason why nothing was changed."""
        async with self._turns.setdefault(message.dataflow_id, anyio.Lock()):
            await self._apply(message)

    async def _apply(self, message: ChangePart) -> None:
        record = self._running(message)
        change = await self._located(record, message.change)
        differs = message.links.edges != record.links.edges
        if differs:
            await self._send_links(record.model_copy(update={"links": message.links}))
        try:
            await self._runners.ask(message.dataflow_id, change)
        except NotAnswered:
            if isinstance(change, protocol.AddNode):
                self._post(self._not_added(record, change))
            if differs:
                await self._restore_links(record)
            raise
        flow, attempt = message.dataflow_id, message.attempt
        self._post(LinkPart(dataflow_id=flow, attempt=attempt, links=message.links))
        await self.read_nodes(flow, attempt)

    def _not_added(self, record: PartRecord, change: protocol.AddNode) -> NodeNotAdded:
        base = base_directory(record.spec, self._machine(), record.dataflow_id)
        folder = log_dir(base, change.place, record.dataflow_id)
        return NodeNotAdded(record.dataflow_id, record.attempt, change.node.id, folder)

    def _running(self, message: ChangePart) -> PartRecord:
        record = self._record(message.dataflow_id)
        if record is None or record.attempt != message.attempt or record.phase != "running":
            raise ChangeRefused("the nodes on this machine are not running; try again")
        if record.stopping:
            raise ChangeRefused("the dataflow is being stopped")
        return record

    async def _located(
        self, record: PartRecord, change: protocol.GraphChange
    ) -> protocol.GraphChange:
        """Fetch the code of a new program; return the change with its location."""
        if not isinstance(change, protocol.AddNode | protocol.ReplaceNode):
            return change
        node, machine = change.node, self._machine()
        spec = record.spec.with_nodes((node,))
        code = {node.id: change.code} if change.code else {}
        places = {node.id: change.place} if change.place != protocol.NodeLocation() else {}
        spec = spec.model_copy(update={"code": code, "places": places})
        await deliver(spec, machine, record.dataflow_id, record.dataflow_id)
        located = locate(spec, base_directory(spec, machine, record.dataflow_id), machine)
        return change.model_copy(update={"place": located.get(node.id, protocol.NodeLocation())})

    async def set_links(self, dataflow_id: str) -> None:
        """Send the links of a part to its runner."""
        async with self._turns.setdefault(dataflow_id, anyio.Lock()):
            record = self._record(dataflow_id)
            if record is not None:
                await self._restore_links(record)

    async def _restore_links(self, record: PartRecord) -> None:
        """Send the stored links; a failure is logged."""
        try:
            await self._send_links(record)
        except (NotAnswered, LinkError) as error:
            logger.warning("dataflow %s: links were not changed: %s", record.dataflow_id, error)

    async def _send_links(self, record: PartRecord) -> None:
        """Send links to a runner. Raises NotAnswered and LinkError."""
        request = await self._links.links(record, record.runtime_token)
        await self._runners.ask(record.dataflow_id, request)

    async def read_nodes(self, dataflow_id: str, attempt: int) -> None:
        """Post the nodes that a runner has."""
        try:
            reply = await self._runners.ask(dataflow_id, protocol.GetNodes())
        except NotAnswered:
            return  # the runner has ended; its revision is reported by the next one
        record = self._record(dataflow_id)
        if not isinstance(reply, protocol.NodeDefinitions) or record is None:
            return
        base = base_directory(record.spec, self._machine(), dataflow_id)
        log_dirs = {one.node.id: log_dir(base, one.place, dataflow_id) for one in reply.nodes}
        self._post(NodesRead(dataflow_id, attempt, reply, log_dirs))
