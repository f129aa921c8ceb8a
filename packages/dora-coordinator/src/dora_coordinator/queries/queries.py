"""Requests of clients that the coordinator answers from its state or by requests to daemons.

A query is a coroutine: it ends with its client, and a restart of the coordinator loses nothing.
"""

from __future__ import annotations

from typing import Final

import anyio

from dora_config.file_store import FileRefused
from dora_config.protocol import control, recordings
from dora_config.protocol.builds import BuildDataflow
from dora_config.protocol.calls import (
    NodeRequest,
    PartReply,
    RunnerAnswered,
    RunnerCall,
    RunnerReplies,
)
from dora_config.protocol.envelope import ProgramVersion, clean_lines
from dora_config.protocol.fleet import CheckMachine, CompareFleet, GetFleet, GetFleetHistory
from dora_config.protocol.runner import DeleteParam, Done, Refusal, RestartNode, SetParam
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.part import Part
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.dataflow.views import cluster_report, dataflow_summary, node_summaries
from dora_coordinator.fleet.steps import require_checks_allowed
from dora_coordinator.queries import lifecycle
from dora_coordinator.queries.builds import build
from dora_coordinator.queries.checks import check
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.daemon_calls import DaemonCalls
from dora_coordinator.queries.explanations import explained
from dora_coordinator.queries.graph_changes import GraphChanges, change_ended_part
from dora_coordinator.queries.logs import read_logs
from dora_coordinator.queries.snapshots import Snapshots
from dora_coordinator.queries.topics import Topics
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import Begun, RequestRefused
from dora_coordinator.state.events import EndedPartChanged, ParamChanged
from dora_coordinator.state.records import Phase

END_SECONDS: Final = 30.0
"""Time for the report of a part's end, after its runner has refused a request because of it."""
RECORDER_SECONDS: Final = 150.0
"""More than twice the 60 s of a recorder's start, which may wait for an earlier one."""


def find_code(registry: DataflowRegistry, build: str, node_id: str) -> str:
    """Return the digest of a node's `CodeSet`; raises FileRefused (404).

    ``build``: the id of a build or the UUID of a dataflow that was started from it, or the name of
    a running dataflow.
    """
    dataflow = _find_dataflow(registry, build)
    if dataflow is None:
        raise FileRefused(404, f'no artifact of node "{node_id}" in build "{build}"')
    nodes = dataflow.spec.resolved.nodes
    node = next((one for one in nodes if one.id == node_id), None)
    if node is None:
        known = ", ".join(one.id for one in nodes)
        text = f'dataflow {dataflow.label} has no node "{node_id}"; its nodes are: {known}'
        raise FileRefused(404, text)
    digest = dataflow.spec.code.get(node_id)
    if digest is None:
        local = node.deploy.distribute == "local"
        reason = "it was started with `distribute: local`" if local else "it has no files"
        text = f'the coordinator does not have the code of node "{node_id}": {reason}'
        raise FileRefused(404, text)
    return digest


def _find_dataflow(registry: DataflowRegistry, build: str) -> Dataflow | None:
    """Return the dataflow that was started last, if several fit."""
    fitting = [
        one for one in registry if build in (one.id, one.spec.build_id, one.spec.delivered_by)
    ]
    return fitting[-1] if fitting else registry.live_named(build)


class Queries:
    def __init__(self, calls: DaemonCalls, settings: Settings, party: ProgramVersion) -> None:
        self._calls = calls
        self._party = party
        self._topics = Topics()
        self._changes = GraphChanges()
        self._snapshots = Snapshots(
            calls, release=party.release, max_message_bytes=settings.max_message_bytes
        )

    async def answer(
        self, query: control.ControlRequest, present: QueryContext, client: RequestClient
    ) -> control.ControlAnswer:
        """Raises :class:`RequestRefused`."""
        cluster, registry, membership = present.state, present.registry, present.membership
        now = anyio.current_time()
        match query:
            case control.StartDataflow():
                return await lifecycle.start(query, present, client)
            case control.StopDataflow():
                return await lifecycle.stop(query, present)
            case control.RestartDataflow() | control.ReplaceDataflow():
                return await lifecycle.restart(query, present, client)
            case control.WaitForEnd():
                return await lifecycle.wait(query, present)
            case control.Destroy():
                return await lifecycle.destroy(query, present)
            case control.ListDataflows():
                rows = (dataflow_summary(one, registry, membership, now) for one in registry)
                return control.DataflowList(dataflows=tuple(rows))
            case control.ListNodes(dataflow=ref):
                chosen = registry.live() if ref is None else [registry.find(ref, archived=True)]
                nodes = (row for one in chosen for row in node_summaries(one, membership))
                return control.NodeList(nodes=tuple(nodes))
            case control.ClusterStatus():
                report = cluster_report(registry, membership, self._party, now)
                standbys = cluster.succession.reports(now)
                claim = cluster.succession.record.claim
                return report.model_copy(update={"claim": claim, "standbys": standbys})
            case control.DescribeDataflow(dataflow=ref):
                dataflow = registry.find(ref, archived=True)
                parts = dataflow.parts.values()
                daemons = {node: part.daemon for part in parts for node in part.nodes}
                return control.Described(uuid=dataflow.id, spec=dataflow.spec, daemons=daemons)
            case CompareFleet(fleet=fleet, only=only):
                return cluster.fleet.compare(fleet, only)
            case GetFleet():
                return cluster.fleet.report(now)
            case GetFleetHistory():
                return cluster.fleet.history()
            case CheckMachine(command=command):
                require_checks_allowed(command, present.settings)
                return await check(query)
            case control.CallRunner(dataflow=ref, node=node, request=request):
                dataflow = registry.find(ref, archived=False)
                return await self._call_runners(dataflow, node, request, present)
            case recordings.CallRecorders():
                return await self._call_recorders(query, cluster)
            case control.ReadLogs():
                return await read_logs(query, present, client)
            case control.WatchTopics():
                return await self._topics.watch(query, present, client)
            case BuildDataflow():
                return await build(query, present, client)
            case control.ChangeGraph():
                return await self._changes.change(query, present)
            case control.Explain():
                return await explained(query, cluster, self._calls)
            case control.GetSnapshot(dataflow=which, edges=edges):
                one = None if which is None else registry.find(which, archived=True)
                return await self._snapshots.get(cluster, one, edges=edges)
            case decision:
                answer = await present.decide(decision)
                assert not isinstance(answer, Begun)
                return answer

    async def _call_runners(
        self, dataflow: Dataflow, node: str | None, request: NodeRequest, present: QueryContext
    ) -> RunnerReplies:
        """Call the runner of ``node`` (None: of every part)."""
        if (ended := _ended_part_of(dataflow, node)) is not None and node is not None:
            return await self._without_runner(dataflow, ended, node, request, present)
        answers = await self._calls.gather(
            _daemons_of(dataflow, node),
            lambda call: RunnerCall(call=call, dataflow_id=dataflow.id, request=request),
            RunnerAnswered,
            seconds=None,
        )
        problems = dict(answers.problems)
        replies = []
        for daemon, answer in answers.found.items():
            match answer.reply:
                case None:
                    problems[daemon] = (
                        f'daemon "{daemon}": {clean_lines(answer.problem or "no reply")}'
                    )
                case Refusal(ended=True) if node is not None and (
                    ended := await _end_of_part(present, dataflow.id, daemon)
                ):
                    return await self._without_runner(dataflow, ended, node, request, present)
                case Refusal(message=reason):
                    problems[daemon] = clean_lines(reason)
                case reply:
                    replies.append(PartReply(daemon=daemon, reply=reply))
        if replies and isinstance(request, SetParam | DeleteParam):
            try:
                await present.store(dataflow.id, ParamChanged(request))
            except RequestRefused as problem:
                text = f"changed until its machine restarts; {problem}"
                raise RequestRefused("failed", text) from problem
        if problems and not replies:
            raise RequestRefused("failed", "\n".join(problems.values()))
        return RunnerReplies(replies=tuple(replies), problems=tuple(problems.values()))

    async def _without_runner(
        self, dataflow: Dataflow, part: Part, node: str, request: NodeRequest, present: QueryContext
    ) -> RunnerReplies:
        """Start a node again, or set its parameter, although its part has ended."""
        if not present.membership.is_connected(part.daemon):
            raise RequestRefused("failed", f'no connection to daemon "{part.daemon}"')
        match request:
            case RestartNode():
                change = EndedPartChanged(part.daemon, starts=(node,))
                await change_ended_part(present, dataflow, change)
            case SetParam() | DeleteParam():
                await present.store(dataflow.id, ParamChanged(request))
            case _:
                raise RequestRefused("not_found", f'node "{node}" of {dataflow.label} has ended')
        return RunnerReplies(replies=(PartReply(daemon=part.daemon, reply=Done()),))

    async def _call_recorders(
        self, query: recordings.CallRecorders, cluster: CoordinatorState
    ) -> recordings.RecorderReplies:
        connected = [member.key for member in cluster.membership.connected()]
        answers = await self._calls.gather(
            query.daemons or connected,
            lambda call: recordings.RecorderCall(call=call, request=query.request),
            recordings.RecorderAnswered,
            seconds=RECORDER_SECONDS,
        )
        replies = []
        for daemon, answer in answers.found.items():
            if answer.reply is not None:
                replies.append(recordings.MachineReply(daemon=daemon, reply=answer.reply))
            else:
                reason = clean_lines(answer.problem or "no reply")
                answers.problems[daemon] = f'daemon "{daemon}": {reason}'
        return recordings.RecorderReplies(replies=tuple(replies), problems=answers.problems)


def _daemons_of(dataflow: Dataflow, node: str | None) -> list[str]:
    if node is None:
        return [part.daemon for part in dataflow.parts.left()]
    by_node = dataflow.parts.by_node()
    daemon = by_node.get(node)
    if daemon is None:
        raise RequestRefused(
            "not_found",
            f'dataflow {dataflow.label} has no node "{node}"; its nodes are: '
            f"{', '.join(sorted(by_node))}",
        )
    return [daemon]


async def _end_of_part(present: QueryContext, dataflow_id: str, daemon: str) -> Part | None:
    """Wait until a part whose runner ends has ended; return None if the dataflow ends with it."""
    with anyio.move_on_after(END_SECONDS):
        while (dataflow := present.registry.get(dataflow_id)) is not None:
            if dataflow.has_ended or dataflow.phase is Phase.STOPPING:
                return None
            part = dataflow.parts.get(daemon)
            if part is None or part.ended:
                return part
            await present.changed()
    return None


def _ended_part_of(dataflow: Dataflow, node: str | None) -> Part | None:
    """Return the part of a node if it has ended."""
    daemon = None if node is None else dataflow.parts.by_node().get(node)
    part = None if daemon is None else dataflow.parts[daemon]
    return part if part is not None and part.ended else None
