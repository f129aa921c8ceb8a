"""Logs of a dataflow: one stream for each daemon that has nodes of it.

A stream that breaks with the connection of its daemon is named in the answer.
"""

from __future__ import annotations

from collections.abc import Collection

import anyio

from dora_config.ids import RUNNER_LOG
from dora_config.protocol.control import LogLines, LogsEnd, ReadLogs
from dora_config.protocol.daemon import EndStream, LogChunk, ReadOn, StreamLogs
from dora_config.protocol.envelope import clean_lines
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.state.commands import RequestRefused


async def read_logs(request: ReadLogs, cluster: QueryContext, client: RequestClient) -> LogsEnd:
    """Forward the log lines of a dataflow; raises :class:`RequestRefused`."""
    dataflow = cluster.registry.find(request.dataflow, archived=True)
    known = {node for part in dataflow.parts.values() for node in part.nodes}
    unknown = tuple(node for node in request.nodes if node not in known)
    refusal = "" if not unknown else _refusal(dataflow, unknown[0], known)
    if unknown and request.follow:
        raise RequestRefused("not_found", refusal)
    reading = _Reading(request, dataflow.id, cluster, client)
    reading.without_log.update(unknown)
    missing = []
    async with anyio.create_task_group() as reading.tasks:
        async with anyio.create_task_group() as streams:
            for part in dataflow.parts.values():
                nodes = tuple(n for n in part.nodes if not request.nodes or n in request.nodes)
                if not request.nodes and nodes:
                    nodes += (f"{RUNNER_LOG}{part.daemon}",)
                if not (nodes := nodes + unknown):
                    continue
                if cluster.membership.is_connected(part.daemon):
                    reading.daemons.append(part.daemon)
                    streams.start_soon(reading.follow, part.daemon, nodes)
                else:
                    reading.problems.append(f'no connection to daemon "{part.daemon}"')
                    missing.append(part.daemon)
            if request.resumes:
                reading.tasks.start_soon(reading.end_with_return, missing)
        reading.tasks.cancel_scope.cancel()
    if reading.without_log:
        raise RequestRefused("not_found", "; ".join((refusal, *reading.problems)))
    return LogsEnd(problems=tuple(reading.problems))


def _refusal(dataflow: Dataflow, node: str, known: Collection[str]) -> str:
    listed = ", ".join(sorted(known))
    return f'dataflow {dataflow.label} has no node "{node}"; its nodes are: {listed}'


class _Reading:
    tasks: anyio.abc.TaskGroup

    def __init__(
        self, request: ReadLogs, dataflow_id: str, cluster: QueryContext, client: RequestClient
    ) -> None:
        self._request = request
        self._dataflow_id = dataflow_id
        self._cluster = cluster
        self._client = client
        self.problems: list[str] = []
        self.daemons: list[str] = []
        """Machines that have not sent all their lines."""
        self.without_log: set[str] = set()
        """Requested nodes that are not part of the dataflow and without a log on the daemons that
        have answered; removed nodes have one.
        """

    async def follow(self, daemon: str, nodes: tuple[str, ...]) -> None:
        """Forward the lines of a daemon, each chunk once the client has the one before."""
        calls, request = self._cluster.calls, self._request
        number = next(calls.stream_numbers)
        after = {node: end for node, end in request.after.items() if node in nodes}
        opening = StreamLogs(
            stream=number,
            dataflow_id=self._dataflow_id,
            nodes=nodes,
            filter=request.filter,
            follow=request.follow,
            after=after,
        )
        done = False
        with calls.stream(daemon, number, opening) as chunks:
            try:
                async for chunk in chunks:
                    assert isinstance(chunk, LogChunk)
                    done = chunk.done
                    await self._forward(daemon, chunk)
                    if done:
                        return
                    calls.send(daemon, ReadOn(stream=number))
            finally:
                self.daemons.remove(daemon)
                if not done:
                    calls.send(daemon, EndStream(stream=number))
        self.problems.append(f'the connection to daemon "{daemon}" was lost')
        if request.resumes:
            self.tasks.cancel_scope.cancel()

    async def _forward(self, daemon: str, chunk: LogChunk) -> None:
        if chunk.problem:
            self.problems.append(f'daemon "{daemon}": {clean_lines(chunk.problem)}')
        if chunk.missing is not None:
            self.without_log.intersection_update(chunk.missing)
        if chunk.lines:
            lines = LogLines(
                daemon=daemon,
                stream=chunk.stream,
                lines=chunk.lines,
                positions=chunk.positions,
                reading=tuple(self.daemons),
            )
            await self._client.deliver(lines)

    async def end_with_return(self, missing: Collection[str]) -> None:
        """End the request when a missing daemon returns: it is sent again."""
        while not any(map(self._cluster.membership.is_connected, missing)):
            await self._cluster.changed()
        self.tasks.cancel_scope.cancel()
