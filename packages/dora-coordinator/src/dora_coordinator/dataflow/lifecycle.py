"""Decisions about starts, stops and restarts of dataflows; pure."""

from __future__ import annotations

from collections.abc import Sequence

from dora_config.protocol import control
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.dataflow.data import NotRestarted
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import StopRequested
from dora_coordinator.dataflow.placement import Plan, place, require_built
from dora_coordinator.dataflow.registry import DataflowRegistry, startable
from dora_coordinator.state.commands import Begun, Command, Log, RequestRefused
from dora_coordinator.state.membership import Membership

Decided = tuple[Begun, list[Command]]


class Lifecycle:
    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership

    def start(self, start: control.StartDataflow, fresh_id: str, now: float) -> Decided:
        """Place and start a new dataflow; raises :class:`RequestRefused`."""
        spec = start.spec
        self._require_free(spec.name)
        return Begun((fresh_id,)), self._registry.start(
            fresh_id, spec, self._placed(spec).parts, now
        )

    def plan(self, spec: DataflowSpec) -> control.PlacementPlan:
        """Return where nodes would run; raises :class:`RequestRefused`.

        Without code in ``spec``, nodes that were not built are placed too.
        """
        self._require_free(spec.name)
        plan = self._placed(spec) if spec.code else place(spec, self._membership.connected())
        return plan.explained

    def _require_free(self, name: str | None) -> None:
        """Raise :class:`RequestRefused` if a running dataflow has the name."""
        running = self._registry.live_named(name) if name else None
        if running is not None:
            problem = _taken(name, running)
            raise RequestRefused("conflict", f"{problem}; stop it or choose another --name")

    def _placed(self, spec: DataflowSpec) -> Plan:
        """Return the placement of built nodes.

        Raises :class:`RequestRefused`, also for nodes that were built on another machine.
        """
        plan = place(spec, self._membership.connected())
        require_built(spec, plan.parts)
        return plan

    def stop(self, stop: control.StopDataflow, now: float) -> Decided:
        """Stop one or all dataflows; raises :class:`RequestRefused`."""
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

    def restart(
        self, restart: control.RestartDataflow | control.ReplaceDataflow, fresh_id: str, now: float
    ) -> Decided:
        """Stop a dataflow to start it again; raises :class:`RequestRefused`."""
        dataflow = self._registry.find(restart.dataflow, archived=False)
        ended_before = dataflow.has_ended
        match restart:
            case control.RestartDataflow(grace=grace, force=force):
                stop = StopRequested(grace, force, restart_as=fresh_id)
            case control.ReplaceDataflow(spec=spec):
                stop = StopRequested(restart_as=fresh_id, restart_spec=spec)
        if dataflow.restart_as is not None and not ended_before:
            raise RequestRefused(
                "conflict",
                f"dataflow {dataflow.label} is being restarted already; `dora stop` ends it "
                "without a new start",
            )
        try:
            self._placed(dataflow.spec if stop.restart_spec is None else stop.restart_spec)
        except RequestRefused as problem:
            raise RequestRefused(
                "placement",
                f"dataflow {dataflow.label} was not restarted, since it could not be started "
                f"again: {problem}",
            ) from problem
        dataflow.start_retry.reset()
        commands = self._registry.apply(dataflow, stop, now)
        if ended_before:
            commands += self.start_again(dataflow, now)
        return Begun((dataflow.id, fresh_id)), commands

    def continue_restarts(self, now: float) -> list[Command]:
        """Start the dataflows that were stopped to be started again, as soon as that is possible.

        This includes restarts that an earlier coordinator has begun.
        """
        waiting = self._registry.waiting_to_restart()
        return [command for dataflow in waiting for command in self.start_again(dataflow, now)]

    def start_again(self, dataflow: Dataflow, now: float) -> list[Command]:
        """Start an ended dataflow again if that was requested."""
        fresh_id, name = dataflow.restart_as, dataflow.spec.name
        if fresh_id is None:
            return []
        if self._registry.get(fresh_id) is not None:
            return self._registry.note_restart(dataflow)
        if any(fresh_id in member.parts for member in self._membership.connected()):
            return []  # the store is older than this start, which is adopted
        if name and (running := self._registry.live_named(name)) is not None:
            taken = NotRestarted("conflict", dataflow.label, _taken(name, running), "")
            return [*self._note(dataflow, taken), *self._registry.note_restart(dataflow)]
        if dataflow.ends_somewhere or dataflow.start_retry.wait(now) > 0:
            return []
        try:
            plan = self._placed(dataflow.restart_spec or dataflow.spec)
        except RequestRefused as problem:
            remedy = (
                f"; it is started when that is possible, `dora stop {name or dataflow.id}` gives "
                "it up"
            )
            refusal = NotRestarted("placement", dataflow.label, str(problem), remedy)
            if dataflow.not_restarted is not None and dataflow.not_restarted.cause == refusal.cause:
                return []
            history = self._registry.history
            refused = history.start_refused(name, "placement", str(problem), now)
            return [*refused, *self._note(dataflow, refusal)]
        spec = dataflow.restart_spec or startable(dataflow.spec)
        return self._registry.start(fresh_id, spec, plan.parts, now, restarts=dataflow)

    def _note(self, dataflow: Dataflow, refusal: NotRestarted) -> list[Command]:
        dataflow.not_restarted = refusal
        return [Log("warning", f"dataflow {refusal}")]


def _taken(name: str | None, running: Dataflow) -> str:
    return f'there is already a running dataflow with name "{name}" ({running.id})'
