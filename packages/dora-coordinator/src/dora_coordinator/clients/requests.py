"""What clients ask for and what they wait for; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dora_config.dataflow.placement import UnplacedNodes
from dora_config.errors import PlacementError
from dora_config.protocol.builds import BuildDataflow
from dora_config.protocol.control import (
    CallRunner,
    ClusterStatus,
    ControlAnswer,
    DataflowList,
    DataflowRef,
    Described,
    DescribeDataflow,
    Destroy,
    Destroyed,
    Ended,
    EndedDataflow,
    FailureCode,
    ForgetEnded,
    ListDataflows,
    ListNodes,
    NodeList,
    ReadLogs,
    RestartDataflow,
    Restarted,
    StartDataflow,
    Started,
    StartTriggered,
    StopDataflow,
    WaitForEnd,
    WatchTopics,
)
from dora_config.protocol.daemon import EndDaemon
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import ProgramVersion
from dora_coordinator.clients.builds import Builds, require_built
from dora_coordinator.clients.log_streams import LogStreams
from dora_coordinator.clients.runner_calls import RunnerCalls
from dora_coordinator.clients.topic_streams import TopicStreams
from dora_coordinator.clients.views import cluster_report, dataflow_summary, node_summaries
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import StopRequested
from dora_coordinator.dataflow.placement import place
from dora_coordinator.dataflow.records import Phase
from dora_coordinator.dataflow.registry import DataflowRegistry, RequestRefused
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import (
    AnswerClient,
    ArmTimer,
    Command,
    EndCoordinator,
    FailClient,
    SendProgress,
    SendToDaemon,
)
from dora_coordinator.state.events import ClientRequested, TimerKey


@dataclass(slots=True)
class _Wait:
    """A request that is answered once dataflows have got somewhere."""

    asked: ClientRequested
    until: Literal["started", "ended", "restarted", "destroyed"]
    left: set[str]
    """Dataflows that have not got there yet."""
    ended: list[EndedDataflow] = field(default_factory=list)
    old: str = ""
    """For a restart: the dataflow that was stopped."""


class Clients:
    def __init__(
        self,
        registry: DataflowRegistry,
        streams: LogStreams,
        builds: Builds,
        calls: RunnerCalls,
        topics: TopicStreams,
        settings: Settings,
        party: ProgramVersion,
    ) -> None:
        self._registry = registry
        self._streams = streams
        self._builds = builds
        self._calls = calls
        self._topics = topics
        self._settings = settings
        self._party = party
        self._waits: dict[str, list[_Wait]] = {}
        """By dataflow id."""
        self._destroying: _Wait | None = None
        self._daemons_told = False
        self._destroyed = False

    # ------------------------------------------------------------------ requests

    def asked(self, asked: ClientRequested, now: float) -> list[Command]:
        try:
            return self._answer(asked, now)
        except RequestRefused as problem:
            return [self._fail(asked, str(problem), problem.code)]
        except (PlacementError, UnplacedNodes) as problem:
            return [self._fail(asked, str(problem), "placement")]

    def _answer(self, asked: ClientRequested, now: float) -> list[Command]:
        registry = self._registry
        match asked.request:
            case StartDataflow(spec=spec, dry_run=dry_run):
                return self._start(asked, spec, dry_run=dry_run, now=now)
            case StopDataflow() as stop:
                return self._stop(asked, stop, now)
            case RestartDataflow(dataflow=ref, grace=grace, force=force):
                return self._restart(asked, ref, StopRequested(grace, force), now)
            case WaitForEnd(dataflow=ref):
                dataflow = registry.find(ref, archived=True)
                if dataflow.has_ended:
                    return [self._reply(asked, Ended(dataflows=(dataflow.ended(),)))]
                self._wait(_Wait(asked, "ended", {dataflow.id}))
                return []
            case ListDataflows():
                rows = tuple(dataflow_summary(dataflow, registry, now) for dataflow in registry)
                return [self._reply(asked, DataflowList(dataflows=rows))]
            case ListNodes(dataflow=ref):
                chosen = registry.live() if ref is None else [registry.find(ref, archived=True)]
                nodes = [row for dataflow in chosen for row in node_summaries(dataflow, registry)]
                return [self._reply(asked, NodeList(nodes=tuple(nodes)))]
            case ForgetEnded():
                gone, commands = registry.forget_ended()
                rows = tuple(dataflow_summary(dataflow, registry, now) for dataflow in gone)
                return [*commands, self._reply(asked, DataflowList(dataflows=rows))]
            case ClusterStatus():
                return [self._reply(asked, cluster_report(registry, self._party, now))]
            case ReadLogs() as request:
                return self._logs(asked, request)
            case BuildDataflow() as request:
                placed = place(request.spec.resolved, registry.membership.connected())
                return self._builds.start(asked, request, placed.parts, now)
            case CallRunner(dataflow=ref, node=node, request=request):
                dataflow = registry.find(ref, archived=False)
                return self._calls.ask(asked, request, dataflow, node)
            case WatchTopics(dataflow=ref) as request:
                return self._topics.open(asked, request, registry.find(ref, archived=False))
            case DescribeDataflow(dataflow=ref):
                return [self._reply(asked, _described(registry.find(ref, archived=True)))]
            case Destroy(force=force):
                return self._destroy(asked, force=force, now=now)

    def _start(
        self, asked: ClientRequested, spec: DataflowSpec, *, dry_run: bool, now: float
    ) -> list[Command]:
        if self._destroying is not None:
            return [self._fail(asked, "the coordinator is ending and starts nothing more")]
        running = self._registry.live_named(spec.name) if spec.name else None
        if running is not None and not dry_run:
            message = (
                f'there is already a running dataflow with name "{spec.name}" ({running.id}); '
                "stop it or choose another --name"
            )
            return [self._fail(asked, message, "conflict")]
        plan = place(spec.resolved, self._registry.membership.connected())
        if dry_run:
            return [self._reply(asked, plan.explained)]
        require_built(spec, plan.parts)
        self._wait(_Wait(asked, "started", {asked.fresh_id}))
        triggered = SendProgress(asked.client, asked.number, StartTriggered(uuid=asked.fresh_id))
        return [triggered, *self._registry.start(asked.fresh_id, spec, plan.parts, now)]

    def _stop(self, asked: ClientRequested, stop: StopDataflow, now: float) -> list[Command]:
        if stop.all:
            chosen = self._registry.live()
            if not chosen:
                raise RequestRefused("nothing_runs", "No dataflows are running.")
        else:
            chosen = [self._registry.find(stop.dataflow, archived=False)]
        event = StopRequested(stop.grace, stop.force)
        commands = [c for dataflow in chosen for c in self._registry.apply(dataflow, event, now)]
        left = {dataflow.id for dataflow in chosen if not dataflow.has_ended}
        wait = _Wait(asked, "ended", left, [one.ended() for one in chosen if one.has_ended])
        if not left:
            return [*commands, self._reply(asked, Ended(dataflows=tuple(wait.ended)))]
        self._wait(wait)
        return commands

    def _restart(
        self, asked: ClientRequested, ref: DataflowRef, stop: StopRequested, now: float
    ) -> list[Command]:
        dataflow = self._registry.find(ref, archived=False)
        wait = _Wait(asked, "restarted", {dataflow.id}, old=dataflow.id)
        commands = self._registry.apply(dataflow, stop, now)
        if dataflow.has_ended:
            return [*commands, *self._all_ended(wait, dataflow, now)]
        self._wait(wait)
        return commands

    def _logs(self, asked: ClientRequested, request: ReadLogs) -> list[Command]:
        dataflow = self._registry.find(request.dataflow, archived=True)
        known = {node for part in dataflow.parts.values() for node in part.nodes}
        missing = [node for node in request.nodes if node not in known]
        if missing:
            message = (
                f'dataflow {dataflow.label} has no node "{missing[0]}"; '
                f"its nodes are: {', '.join(sorted(known))}"
            )
            return [self._fail(asked, message, "not_found")]
        if self._streams.count(asked.client) >= self._settings.streams_per_client:
            limit = self._settings.streams_per_client
            return [self._fail(asked, f"{limit} log streams at once are the most on a connection")]
        return self._streams.open(asked.client, asked.number, request, dataflow)

    def _destroy(self, asked: ClientRequested, *, force: bool, now: float) -> list[Command]:
        live = self._registry.live()
        if live and not force:
            names = ", ".join(dataflow.label for dataflow in live)
            message = f"dataflows are still running: {names}; stop them first, or use --force"
            return [self._fail(asked, message, "conflict")]
        self._destroying = _Wait(asked, "destroyed", {dataflow.id for dataflow in live})
        commands: list[Command] = [
            ArmTimer(TimerKey("destroy"), now + self._settings.destroy_timeout)
        ]
        for dataflow in live:
            commands += self._registry.apply(dataflow, StopRequested(), now)
        return [*commands, *self.end_if_destroyed()]

    # --------------------------------------------------------------------- waits

    def phase_changed(self, dataflow: Dataflow, before: Phase, now: float) -> list[Command]:
        """Answer whoever waited for this."""
        commands: list[Command] = []
        started = dataflow.phase is Phase.RUNNING or (
            dataflow.has_ended and before in (Phase.RELEASING, Phase.RUNNING, Phase.STOPPING)
        )
        for wait in list(self._waits.get(dataflow.id, ())):
            if wait.until == "started":
                if dataflow.waits_for is not None:
                    waits = StartTriggered(uuid=dataflow.id, waits_for=dataflow.waits_for)
                    commands.append(SendProgress(wait.asked.client, wait.asked.number, waits))
                if started or dataflow.has_ended:
                    self._drop(wait, dataflow.id)
                    commands.append(self._start_outcome(wait, dataflow, started=started))
            elif dataflow.has_ended:
                self._drop(wait, dataflow.id)
                wait.ended.append(dataflow.ended())
                commands += self._all_ended(wait, dataflow, now) if not wait.left else []
        if dataflow.has_ended and self._destroying is not None:
            if dataflow.id in self._destroying.left:
                self._destroying.left.discard(dataflow.id)
                self._destroying.ended.append(dataflow.ended())
            commands += self.end_if_destroyed()
        return commands

    def _start_outcome(self, wait: _Wait, dataflow: Dataflow, *, started: bool) -> Command:
        if started and wait.old:
            restarted = Restarted(old=wait.old, new=dataflow.id, warnings=dataflow.warnings)
            return self._reply(wait.asked, restarted)
        if started:
            started_as = Started(uuid=dataflow.id, warnings=dataflow.warnings)
            return self._reply(wait.asked, started_as)
        return FailClient(
            wait.asked.client,
            wait.asked.number,
            f"dataflow {dataflow.label} was not started: {dataflow.reason}",
            ended=dataflow.ended(),
        )

    def _all_ended(self, wait: _Wait, dataflow: Dataflow, now: float) -> list[Command]:
        if wait.until == "ended":
            return [self._reply(wait.asked, Ended(dataflows=tuple(wait.ended)))]
        try:
            plan = place(dataflow.spec.resolved, self._registry.membership.connected())
            require_built(dataflow.spec, plan.parts)
        except (PlacementError, UnplacedNodes) as problem:
            message = f"{dataflow.label} was stopped but not started again: {problem}"
            return [self._fail(wait.asked, message, "placement")]
        fresh = wait.asked.fresh_id
        self._wait(_Wait(wait.asked, "started", {fresh}, old=wait.old))
        return self._registry.start(fresh, dataflow.spec, plan.parts, now)

    def end_if_destroyed(self, *, overdue: bool = False) -> list[Command]:
        """End once the dataflows have ended and then the daemons; ``overdue``: end now."""
        wait = self._destroying
        if wait is None or self._destroyed or (wait.left and not overdue):
            return []
        commands: list[Command] = []
        daemons = self._registry.membership.connected()
        if not self._daemons_told:
            self._daemons_told = True
            commands = [SendToDaemon(member.key, EndDaemon()) for member in daemons]
        if daemons and not overdue:
            return commands
        self._destroyed = True
        left = {*self._registry.unfinished_daemons(), *(member.key for member in daemons)}
        answer = Destroyed(dataflows=tuple(wait.ended), left=tuple(sorted(left)))
        return [*commands, self._reply(wait.asked, answer), EndCoordinator()]

    def client_gone(self, client: int) -> None:
        for waits in list(self._waits.values()):
            for wait in list(waits):
                if wait.asked.client == client and wait.until != "restarted":
                    self._abandon(wait)

    def cancelled(self, client: int, number: int) -> None:
        for waits in list(self._waits.values()):
            for wait in list(waits):
                if (wait.asked.client, wait.asked.number) == (client, number):
                    self._abandon(wait)

    def _wait(self, wait: _Wait) -> None:
        for dataflow_id in wait.left:
            self._waits.setdefault(dataflow_id, []).append(wait)

    def _abandon(self, wait: _Wait) -> None:
        for dataflow_id in list(wait.left):
            self._drop(wait, dataflow_id)

    def _drop(self, wait: _Wait, dataflow_id: str) -> None:
        wait.left.discard(dataflow_id)
        waits = self._waits[dataflow_id]
        waits.remove(wait)
        if not waits:
            del self._waits[dataflow_id]

    def _reply(self, asked: ClientRequested, answer: ControlAnswer) -> Command:
        return AnswerClient(asked.client, asked.number, answer)

    def _fail(self, asked: ClientRequested, message: str, code: FailureCode = "failed") -> Command:
        return FailClient(asked.client, asked.number, message, code)


def _described(dataflow: Dataflow) -> Described:
    daemons = {node: part.daemon for part in dataflow.parts.values() for node in part.nodes}
    return Described(uuid=dataflow.id, spec=dataflow.spec, daemons=daemons)
