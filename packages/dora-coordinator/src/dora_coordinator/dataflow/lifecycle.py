"""Decisions about starts, stops and restarts of dataflows; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dora_config.errors import PlacementError
from dora_config.protocol import control
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import StopRequested
from dora_coordinator.dataflow.placement import Plan, place, require_built
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.state.commands import Begun, Command, Log, RequestRefused
from dora_coordinator.state.membership import Membership

Decided = tuple[Begun | control.PlacementPlan, list[Command]]


class Lifecycle:
    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership

    def start(self, start: control.StartDataflow, fresh_id: str, now: float) -> Decided:
        """Raises :class:`RequestRefused`."""
        spec = start.spec
        running = self._registry.live_named(spec.name) if spec.name else None
        if running is not None:
            problem = _taken(spec.name, running)
            raise RequestRefused("conflict", f"{problem}; stop it or choose another --name")
        plan = place(spec.resolved, self._membership.connected())
        if spec.code or not start.dry_run:
            require_built(spec, plan.parts)
        if start.dry_run:
            return plan.explained, []
        return Begun((fresh_id,)), self._registry.start(fresh_id, spec, plan.parts, now)

    def _placed(self, spec: DataflowSpec) -> Plan:
        """Raises :class:`RequestRefused`, also for nodes that were built on another machine."""
        plan = place(spec.resolved, self._membership.connected())
        require_built(spec, plan.parts)
        return plan

    def _require_answering(self, parts: Mapping[str, Sequence[str]], now: float) -> None:
        """Raise RequestRefused if a daemon may be away although its connection has not ended."""
        for key, nodes in parts.items():
            if silence := self._membership.silence(key, now):
                reason = f'daemon "{key}" has not answered for {silence:.0f} s'
                raise RequestRefused("placement", str(PlacementError(nodes[0], reason)))

    def stop(self, stop: control.StopDataflow, now: float) -> Decided:
        """Raises :class:`RequestRefused`."""
        if stop.all:
            chosen = self._registry.live()
            if not chosen:
                raise RequestRefused("nothing_runs", "No dataflows are running.")
        else:
            chosen = [self._registry.find(stop.dataflow, archived=False)]
        return self.stop_all(chosen, StopRequested(stop.grace, stop.force), now)

    def stop_all(self, dataflows: Sequence[Dataflow], event: StopRequested, now: float) -> Decided:
        commands = [c for one in dataflows for c in self._registry.apply(one, event, now)]
        return Begun(tuple(one.id for one in dataflows)), commands

    def restart(self, restart: control.RestartDataflow, fresh_id: str, now: float) -> Decided:
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
        except RequestRefused as problem:
            raise RequestRefused(
                "placement",
                f"dataflow {dataflow.label} was not restarted, since it could not be started "
                f"again: {problem}",
            ) from problem
        stop = StopRequested(restart.grace, restart.force, restart_as=fresh_id)
        commands = self._registry.apply(dataflow, stop, now)
        if ended_before:
            commands += self.start_again(dataflow, now)
        return Begun((dataflow.id, fresh_id)), commands

    def start_again(self, dataflow: Dataflow, now: float) -> list[Command]:
        """Start an ended dataflow again if that was requested, also of an earlier coordinator."""
        fresh_id, name = dataflow.restart_as, dataflow.spec.name
        if fresh_id is None or self._registry.get(fresh_id) is not None:
            return []
        if name and (running := self._registry.live_named(name)) is not None:
            return [_not_started_again(dataflow, _taken(name, running), "conflict")]
        try:
            plan = self._placed(dataflow.spec)
        except RequestRefused as problem:
            refused = self._registry.history.start_refused(name, "placement", str(problem), now)
            return [*refused, _not_started_again(dataflow, str(problem), "placement")]
        spec = dataflow.spec.model_copy(update={"recording": None, "stopped": ()})
        return self._registry.start(fresh_id, spec, plan.parts, now)


def _not_started_again(dataflow: Dataflow, problem: str, code: control.FailureCode) -> Command:
    message = f"{dataflow.label} was stopped but not started again: {problem}"
    dataflow.not_restarted = RequestRefused(code, message)
    return Log("warning", f"dataflow {message}")


def _taken(name: str | None, running: Dataflow) -> str:
    return f'there is already a running dataflow with name "{name}" ({running.id})'
