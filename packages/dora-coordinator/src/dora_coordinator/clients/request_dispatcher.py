"""Requests of clients: dispatch, lists, and the messages of daemons that answer them; pure."""

from __future__ import annotations

from collections.abc import Callable

from dora_config.dataflow.placement import UnplacedNodes
from dora_config.errors import PlacementError
from dora_config.protocol import control, fleet as fleets
from dora_config.protocol.builds import BuildDataflow, BuildEnded, BuildEvents
from dora_config.protocol.calls import PartResult
from dora_config.protocol.daemon import LogChunk
from dora_config.protocol.recordings import CallRecorders
from dora_config.protocol.topics import TopicChunk
from dora_coordinator.clients.builds import Builds
from dora_coordinator.clients.destroy import Destruction
from dora_coordinator.clients.graph_changes import GraphChanges
from dora_coordinator.clients.lifecycle import LifecycleRequests
from dora_coordinator.clients.log_streams import LogStreams
from dora_coordinator.clients.topic_streams import TopicStreams
from dora_coordinator.clients.views import dataflow_summary
from dora_coordinator.dataflow.placement import place
from dora_coordinator.dataflow.registry import DataflowChanged, DataflowRegistry, RequestRefused
from dora_coordinator.fleet.fleet import FleetControl
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands, events
from dora_coordinator.state.commands import AnswerClient, Command, FailClient
from dora_coordinator.state.membership import Membership

DaemonReply = LogChunk | TopicChunk | BuildEvents | BuildEnded | PartResult
"""Messages of daemons that belong to a client's request."""


RemoveMachines = Callable[[events.ClientRequested, control.RemoveMachines, float], list[Command]]
"""Removes machines from the cluster, which also concerns their connections."""
SetStandbys = Callable[[events.ClientRequested, control.SetStandbys], list[Command]]
"""Replaces the standbys, which all daemons receive."""


class RequestDispatcher:
    def __init__(
        self,
        registry: DataflowRegistry,
        membership: Membership,
        settings: Settings,
        remove_machines: RemoveMachines,
        set_standbys: SetStandbys,
        fleet: FleetControl,
    ) -> None:
        self._fleet = fleet
        self._remove_machines = remove_machines
        self._set_standbys = set_standbys
        self._registry = registry
        self._membership = membership
        self._lifecycle = LifecycleRequests(registry, membership)
        self._destruction = Destruction(registry, membership, settings)
        self._logs = LogStreams(membership, settings)
        self._topics = TopicStreams(registry, membership, settings)
        self._builds = Builds(settings, registry.history)
        self._changes = GraphChanges(registry, membership)

    def handle(self, event: events.ClientEvent, now: float) -> list[Command]:
        match event:
            case events.ClientRequested():
                return self._requested(event, now)
            case events.ClientCancelled(client=client, number=number):
                return self._drop(client, number)
            case events.ClientDisconnected(client=client):
                return self._drop(client, None)
            case events.TopicChunkTaken(client=client, number=number, stream=stream):
                return self._topics.taken(client, number, stream)
            case events.LogLinesSent(stream=stream):
                return self._logs.sent(stream)
            case events.BuildProgressSent(build_id=build_id, daemon=daemon):
                return self._builds.sent(build_id, daemon)

    def _drop(self, client: int, number: int | None) -> list[Command]:
        """Forget one request of a client (None: all of them)."""
        self._lifecycle.drop(client, number)
        self._changes.drop(client, number)
        return [
            *self._logs.drop(client, number),
            *self._topics.drop(client, number),
            *self._builds.drop(client, number),
        ]

    def _requested(self, requested: events.ClientRequested, now: float) -> list[Command]:
        try:
            return self._dispatch(requested, now)
        except RequestRefused as problem:
            return [FailClient(requested.client, requested.number, str(problem), problem.code)]
        except (PlacementError, UnplacedNodes) as problem:
            failure = FailClient(requested.client, requested.number, str(problem), "placement")
            return [*self._note_refusal(requested.request, str(problem), now), failure]

    def _note_refusal(
        self, request: control.ControlRequest, problem: str, now: float
    ) -> list[Command]:
        """Keep why a dataflow was not placed, for `dora why`."""
        match request:
            case control.StartDataflow(spec=spec, dry_run=True) if not spec.code:
                return []
            case control.StartDataflow(spec=spec) | BuildDataflow(spec=spec):
                return self._registry.history.start_refused(spec.name, "placement", problem, now)
            case _:
                return []

    def _dispatch(self, requested: events.ClientRequested, now: float) -> list[Command]:
        registry = self._registry
        match requested.request:
            case control.StartDataflow() | control.RestartDataflow() if self._is_ending:
                raise RequestRefused("failed", "the coordinator is ending; start refused")
            case control.StartDataflow() as start:
                return self._lifecycle.start(requested, start, now)
            case control.StopDataflow() as stop:
                return self._lifecycle.stop(requested, stop, now)
            case control.RestartDataflow() as restart:
                return self._lifecycle.restart(requested, restart, now)
            case control.WaitForEnd(dataflow=ref):
                return self._lifecycle.wait_for_end(requested, ref)
            case control.ReadLogs(dataflow=ref) as request:
                return self._logs.open(requested, request, registry.find(ref, archived=True))
            case BuildDataflow() as request:
                plan = place(request.spec.resolved, self._membership.connected())
                return self._builds.start(requested, request, plan.parts, now)
            case control.ChangeGraph(dataflow=ref) as request:
                dataflow = registry.find(ref, archived=False)
                return self._changes.open(requested, request, dataflow, now)
            case control.WatchTopics(dataflow=ref) as request:
                return self._topics.open(requested, request, registry.find(ref, archived=False))
            case control.Destroy() as destroy:
                live = registry.live()
                ending = self._destruction.request(requested, destroy, now)
                reason = "the coordinator is ending"
                return [*self._lifecycle.cancel_restarts(live, reason), *ending]
            case control.ForgetEnded():
                gone, changes = registry.forget_ended()
                rows = [dataflow_summary(one, self._membership, now) for one in gone]
                return [*changes, *_answer(requested, control.DataflowList(dataflows=tuple(rows)))]
            case control.RotateToken(grace=grace):
                ready = [member.key for member in self._membership.connected()]
                return [
                    commands.RotateToken(requested.client, requested.number, grace, tuple(ready))
                ]
            case fleets.ApplyFleet() | fleets.RollBackFleet() | fleets.PauseFleet() as request:
                answer, changes = self._fleet.request(request, now)
                return [*changes, *_answer(requested, answer)]
            case control.RemoveMachines() as request:
                return self._remove_machines(requested, request, now)
            case control.SetStandbys() as request:
                return self._set_standbys(requested, request)
            case (
                control.CallRunner()
                | CallRecorders()
                | fleets.CompareFleet()
                | fleets.GetFleet()
                | fleets.GetFleetHistory()
                | control.ClusterStatus()
                | control.DescribeDataflow()
                | control.Explain()
                | control.GetSnapshot()
                | control.ListDataflows()
                | control.ListNodes()
            ):
                raise RequestRefused("failed", "queries are answered by the REST API")

    @property
    def _is_ending(self) -> bool:
        return self._destruction.is_requested

    # ------------------------------------------------- consequences of other events

    def daemon_reply(self, daemon: str, message: DaemonReply, now: float) -> list[Command]:
        match message:
            case LogChunk():
                return self._logs.chunk(daemon, message)
            case TopicChunk():
                return self._topics.chunk(daemon, message, now)
            case BuildEvents():
                return self._builds.progress(daemon, message)
            case BuildEnded():
                return self._builds.ended(daemon, message, now)
            case PartResult():
                return self._changes.answered(daemon, message)

    def daemon_connected(self, daemon: str) -> list[Command]:
        return self._logs.daemon_connected(daemon)

    def daemon_lost(self, daemon: str, now: float) -> list[Command]:
        """End what was in progress on a lost or replaced connection to a daemon."""
        return [
            *self._logs.daemon_lost(daemon),
            *self._topics.daemon_lost(daemon),
            *self._builds.daemon_lost(daemon, now),
            *self._changes.daemon_lost(daemon),
        ]

    def dataflow_changed(self, change: DataflowChanged, now: float) -> list[Command]:
        found = self._lifecycle.dataflow_changed(change, now)
        if change.dataflow.has_ended:
            found += self._destruction.dataflow_ended(change.dataflow)
        return found

    def build_timed_out(self, build_id: str, now: float) -> list[Command]:
        return self._builds.timed_out(build_id, now)

    def viewer_timer_fired(self, stream: str, now: float) -> list[Command]:
        return self._topics.timer_fired(stream, now)

    def continue_destruction(self, *, overdue: bool = False) -> list[Command]:
        """Call after a daemon was lost; ``overdue``: the time limit has passed."""
        return self._destruction.proceed(overdue=overdue)

    def settle(self) -> list[Command]:
        """Call after every event: a part that starts may have streams to reopen, or be the answer
        to a request.
        """
        return [*self._topics.reopen(), *self._changes.settle()]


def _answer(requested: events.ClientRequested, answer: control.ControlAnswer) -> list[Command]:
    return [AnswerClient(requested.client, requested.number, answer)]
