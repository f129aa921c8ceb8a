"""Requests that start, stop or restart dataflows or wait for their end; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dora_config.dataflow.placement import UnplacedNodes
from dora_config.errors import PlacementError
from dora_config.protocol import control
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.clients.builds import require_built
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import StopRequested
from dora_coordinator.dataflow.placement import Plan, place
from dora_coordinator.dataflow.registry import DataflowChanged, DataflowRegistry, RequestRefused
from dora_coordinator.state.commands import AnswerClient, Command, FailClient, Log, SendProgress
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import Phase


@dataclass(slots=True, eq=False)
class _Wait:
    """A request that is answered once its dataflows have reached ``until``."""

    requested: ClientRequested
    until: Literal["started", "ended"]
    left: set[str]
    """Dataflows that have not reached it."""
    ended: list[control.EndedDataflow] = field(default_factory=list)
    old: str = ""
    """For a restart: the dataflow that was stopped."""


class LifecycleRequests:
    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership
        self._waits: list[_Wait] = []

    def start(
        self, requested: ClientRequested, start: control.StartDataflow, now: float
    ) -> list[Command]:
        """Raises :class:`RequestRefused` and placement errors."""
        spec = start.spec
        running = self._registry.live_named(spec.name) if spec.name else None
        if running is not None:
            problem = _taken(spec.name, running)
            raise RequestRefused("conflict", f"{problem}; stop it or choose another --name")
        plan = place(spec.resolved, self._membership.connected())
        if spec.code or not start.dry_run:
            require_built(spec, plan.parts)
        if start.dry_run:
            return [AnswerClient(requested.client, requested.number, plan.explained)]
        self._waits.append(_Wait(requested, "started", {requested.fresh_id}))
        triggered = control.StartTriggered(uuid=requested.fresh_id)
        return [
            SendProgress(requested.client, requested.number, triggered),
            *self._registry.start(requested.fresh_id, spec, plan.parts, now),
        ]

    def _placed(self, spec: DataflowSpec) -> Plan:
        """Raises placement errors, also for nodes that were built on another machine."""
        plan = place(spec.resolved, self._membership.connected())
        require_built(spec, plan.parts)
        return plan

    def _require_answering(self, parts: Mapping[str, Sequence[str]], now: float) -> None:
        """Raise PlacementError if a daemon may be away although its connection has not ended."""
        for key, nodes in parts.items():
            if silence := self._membership.silence(key, now):
                raise PlacementError(
                    nodes[0], f'daemon "{key}" has not answered for {silence:.0f} s'
                )

    def stop(
        self, requested: ClientRequested, stop: control.StopDataflow, now: float
    ) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        if stop.all:
            chosen = self._registry.live()
            if not chosen:
                raise RequestRefused("nothing_runs", "No dataflows are running.")
        else:
            chosen = [self._registry.find(stop.dataflow, archived=False)]
        event = StopRequested(stop.grace, stop.force)
        commands = self.cancel_restarts(chosen, "a stop was requested")
        commands += [c for dataflow in chosen for c in self._registry.apply(dataflow, event, now)]
        left = {dataflow.id for dataflow in chosen if not dataflow.has_ended}
        wait = _Wait(requested, "ended", left, [one.ended() for one in chosen if one.has_ended])
        if not left:
            return [*commands, _answer_ended(wait)]
        self._waits.append(wait)
        return commands

    def restart(
        self, requested: ClientRequested, restart: control.RestartDataflow, now: float
    ) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        dataflow = self._registry.find(restart.dataflow, archived=False)
        ended_before = dataflow.has_ended
        if dataflow.restart_as is not None and not ended_before:
            raise RequestRefused(
                "conflict",
                f"dataflow {dataflow.label} is being restarted already; `dora stop` ends it "
                "without a new start",
            )
        try:
            plan = self._placed(dataflow.spec)
            self._require_answering(plan.parts, now)
        except (PlacementError, UnplacedNodes) as problem:
            raise RequestRefused(
                "placement",
                f"dataflow {dataflow.label} was not restarted, since it could not be started "
                f"again: {problem}",
            ) from problem
        self._waits.append(_Wait(requested, "started", {requested.fresh_id}, old=dataflow.id))
        stop = StopRequested(restart.grace, restart.force, restart_as=requested.fresh_id)
        commands = self._registry.apply(dataflow, stop, now)
        return [*commands, *self._start_again(dataflow, now)] if ended_before else commands

    def cancel_restarts(self, stopped: Iterable[Dataflow], reason: str) -> list[Command]:
        """Fail the restarts of dataflows that have not ended: these are only stopped."""
        commands: list[Command] = []
        for dataflow in stopped:
            message = f"dataflow {dataflow.label} is stopped and not started again: {reason}"
            commands += self._fail_restart(dataflow, message, "failed")
        return commands

    def _fail_restart(
        self, old: Dataflow, message: str, code: control.FailureCode
    ) -> list[Command]:
        """Answer the request that restarts a dataflow, if its client still waits."""
        wait = next((wait for wait in self._waits if wait.old == old.id), None)
        if wait is None:
            return []
        self._waits.remove(wait)
        return [FailClient(wait.requested.client, wait.requested.number, message, code)]

    def wait_for_end(self, requested: ClientRequested, ref: str | None) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        dataflow = self._registry.find(ref, archived=True)
        if dataflow.has_ended:
            return [_answer_ended(_Wait(requested, "ended", set(), [dataflow.ended()]))]
        self._waits.append(_Wait(requested, "ended", {dataflow.id}))
        return []

    def drop(self, client: int, number: int | None) -> None:
        """Forget one request of a client (None: all of them)."""
        self._waits = [one for one in self._waits if not one.requested.is_of(client, number)]

    def dataflow_changed(self, change: DataflowChanged, now: float) -> list[Command]:
        """Answer the requests that waited for this change; start again what was to be restarted.

        A restart is completed without its client, and by a later coordinator.
        """
        dataflow = change.dataflow
        commands: list[Command] = []
        for wait in [wait for wait in self._waits if dataflow.id in wait.left]:
            match wait.until:
                case "started":
                    commands += self._start_changed(wait, change)
                case "ended" if not dataflow.has_ended:
                    pass
                case "ended":
                    wait.left.discard(dataflow.id)
                    wait.ended.append(dataflow.ended())
                    if not wait.left:
                        self._waits.remove(wait)
                        commands.append(_answer_ended(wait))
        if dataflow.has_ended and not change.before.has_ended:
            commands += self._start_again(dataflow, now)
        return commands

    def _start_changed(self, wait: _Wait, change: DataflowChanged) -> list[Command]:
        requested, dataflow = wait.requested, change.dataflow
        commands: list[Command] = []
        if dataflow.waits_for is not None:
            waits = control.StartTriggered(uuid=dataflow.id, waits_for=dataflow.waits_for)
            commands.append(SendProgress(requested.client, requested.number, waits))
        started = dataflow.phase is Phase.RUNNING or (
            dataflow.has_ended and change.before in (Phase.RELEASING, Phase.RUNNING, Phase.STOPPING)
        )
        if started or dataflow.has_ended:
            self._waits.remove(wait)
            commands.append(_answer_start(wait, dataflow, started=started))
        return commands

    def _start_again(self, dataflow: Dataflow, now: float) -> list[Command]:
        """Start an ended dataflow again if that was requested."""
        fresh_id, name = dataflow.restart_as, dataflow.spec.name
        if fresh_id is None or self._registry.get(fresh_id) is not None:
            return []
        if name and (running := self._registry.live_named(name)) is not None:
            return self._not_started_again(dataflow, _taken(name, running), "conflict")
        try:
            plan = self._placed(dataflow.spec)
        except (PlacementError, UnplacedNodes) as problem:
            refused = self._registry.history.start_refused(name, "placement", str(problem), now)
            failed = self._not_started_again(dataflow, str(problem), "placement")
            return [*refused, *failed]
        spec = dataflow.spec.model_copy(update={"recording": None, "stopped": ()})
        return self._registry.start(fresh_id, spec, plan.parts, now)

    def _not_started_again(
        self, dataflow: Dataflow, problem: str, code: control.FailureCode
    ) -> list[Command]:
        message = f"{dataflow.label} was stopped but not started again: {problem}"
        log = Log("warning", f"dataflow {message}")
        return [log, *self._fail_restart(dataflow, message, code)]


def _taken(name: str | None, running: Dataflow) -> str:
    return f'there is already a running dataflow with name "{name}" ({running.id})'


def _answer_ended(wait: _Wait) -> Command:
    answer = control.Ended(dataflows=tuple(wait.ended))
    return AnswerClient(wait.requested.client, wait.requested.number, answer)


def _answer_start(wait: _Wait, dataflow: Dataflow, *, started: bool) -> Command:
    client, number = wait.requested.client, wait.requested.number
    if not started:
        message = f"dataflow {dataflow.label} was not started: {dataflow.reason}"
        return FailClient(client, number, message, ended=dataflow.ended())
    if wait.old:
        restarted = control.Restarted(old=wait.old, new=dataflow.id, warnings=dataflow.warnings)
        return AnswerClient(client, number, restarted)
    return AnswerClient(
        client, number, control.Started(uuid=dataflow.id, warnings=dataflow.warnings)
    )
