"""Requests of clients that the coordinator answers from its state or by requests to daemons.

A query is a coroutine: it ends with its client, and a restart of the coordinator loses nothing.
"""

from __future__ import annotations

import anyio

from dora_config.protocol import control, recordings
from dora_config.protocol.builds import BuildDataflow
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.fleet import CheckMachine, CompareFleet, GetFleet, GetFleetHistory
from dora_coordinator.dataflow.views import cluster_report, dataflow_list, described, node_list
from dora_coordinator.fleet.steps import require_checks_allowed
from dora_coordinator.queries import lifecycle
from dora_coordinator.queries.builds import build
from dora_coordinator.queries.checks import check
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.explanations import explained
from dora_coordinator.queries.graph_changes import GraphChanges
from dora_coordinator.queries.logs import read_logs
from dora_coordinator.queries.recorder_calls import call_recorders
from dora_coordinator.queries.runner_calls import call_runners
from dora_coordinator.queries.snapshots import Snapshots
from dora_coordinator.queries.topics import Topics
from dora_coordinator.state.commands import Begun


class Queries:
    def __init__(self, party: ProgramVersion) -> None:
        self._party = party
        self._topics = Topics()
        self._changes = GraphChanges()
        self._snapshots = Snapshots(party.release)

    async def answer(
        self, query: control.ControlRequest, present: QueryContext, client: RequestClient
    ) -> control.ControlAnswer:
        """Return the answer to a request; raises :class:`RequestRefused`."""
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
                return dataflow_list(registry, membership, now)
            case control.ListNodes(dataflow=ref):
                chosen = registry.live() if ref is None else [registry.find(ref, archived=True)]
                return node_list(chosen, membership)
            case control.ClusterStatus():
                report = cluster_report(registry, membership, self._party, now)
                standbys = cluster.succession.reports(now)
                claim = cluster.succession.record.claim
                return report.model_copy(update={"claim": claim, "standbys": standbys})
            case control.DescribeDataflow(dataflow=ref):
                return described(registry.find(ref, archived=True))
            case CompareFleet(fleet=fleet, only=only):
                return cluster.fleet.compare(fleet, only)
            case GetFleet():
                return cluster.fleet.report(now)
            case GetFleetHistory():
                return cluster.fleet.history()
            case CheckMachine(command=command):
                require_checks_allowed(command, present.settings)
                return await check(query)
            case control.CallRunner():
                return await call_runners(query, present)
            case recordings.CallRecorders():
                return await call_recorders(query, present)
            case control.ReadLogs():
                return await read_logs(query, present, client)
            case control.WatchTopics():
                return await self._topics.watch(query, present, client)
            case BuildDataflow():
                return await build(query, present, client)
            case control.ChangeGraph():
                return await self._changes.change(query, present)
            case control.Explain():
                return await explained(query, present)
            case control.GetSnapshot(dataflow=which, edges=edges):
                one = None if which is None else registry.find(which, archived=True)
                return await self._snapshots.get(present, one, edges=edges)
            case decision:
                answer = await present.decide(decision)
                assert not isinstance(answer, Begun)
                return answer
