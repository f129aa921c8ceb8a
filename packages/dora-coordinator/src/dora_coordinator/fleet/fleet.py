"""Desired state of the fleet: requests of operators, and roll-outs towards it; pure.

The desired state and the progress of each dataflow are stored; all else is observed at each tick,
so that a coordinator that was killed or promoted continues. `dora_config.cluster.rollout` decides
what may change; each step is an ordinary request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dora_config.cluster.rollout import RollOut, Seen
from dora_config.protocol import fleet as fleets
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.fleet.comparison import Comparison, Copy, clock
from dora_coordinator.fleet.generations import Generations
from dora_coordinator.fleet.observation import FleetObserver, View
from dora_coordinator.fleet.report import observed_copy
from dora_coordinator.fleet.steps import Held, require_checks_allowed, step_towards
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import (
    ArmTimer,
    Command,
    Log,
    RequestRefused,
)
from dora_coordinator.state.events import FleetStep, FleetStepEnded, StoreLoaded, TimerKey
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import Phase

TICK: Final = 0.5
"""Seconds between decisions during a roll-out."""
IDLE_TICK: Final = 2.0
"""Seconds between decisions otherwise."""
_LATER: Final = frozenset({"conflict", "placement", "unavailable", "ambiguous"})
"""Codes of refusals that do not fail a roll-out."""


class FleetControl:
    def __init__(
        self,
        registry: DataflowRegistry,
        membership: Membership,
        settings: Settings,
        wall_offset: float = 0.0,
    ) -> None:
        self._registry = registry
        self._membership = membership
        self._settings = settings
        self._wall_offset = wall_offset
        self._generations = Generations()
        self._comparison = Comparison(registry, membership, self._generations)
        self._roll_out = RollOut()
        self._observer = FleetObserver(self._comparison, self._roll_out)

    @property
    def status(self) -> fleets.FleetStatus:
        return self._generations.status

    def load(self, loaded: StoreLoaded, now: float) -> list[Command]:
        """Continue with what an earlier coordinator stored."""
        self._generations.load(loaded)
        return self._arm(now, TICK)

    # -------------------------------------------------------------------- requests

    def request(
        self, request: fleets.ApplyFleet | fleets.RollBackFleet | fleets.PauseFleet, now: float
    ) -> tuple[fleets.FleetReport, list[Command]]:
        """Return the answer and what to store; raises :class:`RequestRefused`."""
        match request:
            case fleets.ApplyFleet():
                commands = self._apply(request, now)
            case fleets.RollBackFleet():
                commands = self._roll_back(request, now)
            case fleets.PauseFleet():
                commands = self._pause(request)
        return self.report(now), [*commands, *(self._arm(now, 0.0) if commands else [])]

    def compare(self, fleet: fleets.Fleet, only: tuple[str, ...]) -> fleets.FleetComparison:
        """Compare a fleet with what runs; raises :class:`RequestRefused`."""
        wanted = self._wanted(fleet, only)
        found = tuple(self._comparison.compare(self._comparison.stamped(wanted)))
        differs = any(one.lines() for one in found) or not self._generations.wants(wanted)
        known = self._comparison.labels().keys() | self._membership.identities.machines()
        return fleets.FleetComparison(
            generation=self._generations.number,
            copies=found,
            differs=differs,
            machines=tuple(sorted(known)),
        )

    def history(self) -> fleets.FleetHistory:
        entries = tuple(one.entry for one in self._generations.history())
        return fleets.FleetHistory(generations=entries)

    def _wanted(self, given: fleets.Fleet, only: tuple[str, ...]) -> fleets.Fleet:
        """Return the present fleet with these dataflows changed; none: the given one."""
        present = self._generations.fleet
        for name in only:
            if given.get(name) is None and present.get(name) is None:
                known = ", ".join(one.name for one in present.dataflows) or "none"
                raise RequestRefused(
                    "not_found", f'--only "{name}": no such dataflow in the file; applied: {known}'
                )
        return present.with_only(given, only)

    def _apply(self, request: fleets.ApplyFleet, now: float) -> list[Command]:
        if request.generation != self._generations.number:
            last = "it was removed"
            if (present := self._generations.present) is not None:
                entry = present.entry
                last = f"{entry.by} applied generation {entry.generation}{clock(entry.at)}"
            raise RequestRefused(
                "conflict",
                f"{last}, after {request.by or 'you'} compared with generation"
                f" {request.generation}; compare again with `dora cluster diff`",
            )
        self._require_not_paused()
        require_checks_allowed(request.fleet.rollout.check, self._settings)
        if self.status.paused is None and not self.compare(request.fleet, request.only).differs:
            return []
        given = self._wanted(request.fleet, request.only)
        return self._begin(given, request.by, now, force=request.force)

    def _require_not_paused(self) -> None:
        """Raise RequestRefused while an operator's pause lasts, which only `resume` ends."""
        if (reason := fleets.operators_pause(self.status.paused)) is not None:
            raise RequestRefused("conflict", f"{reason}; run `dora cluster resume` first")

    def _roll_back(self, request: fleets.RollBackFleet, now: float) -> list[Command]:
        self._require_not_paused()
        present = self._generations.number
        to = self._generations.last_good() if request.to is None else request.to
        target = self._generations.get(to)
        if target is None or target.fleet is None or to == present:
            possible = [
                str(one.entry.generation)
                for one in self._generations.history()
                if one.fleet is not None and one.entry.generation != present
            ]
            listed = ", ".join(possible) or "none"
            raise RequestRefused(
                "not_found", f"no rollback to generation {to} is possible; generations: {listed}"
            )
        require_checks_allowed(target.fleet.rollout.check, self._settings)
        return self._begin(target.fleet, request.by, now, back_to=to)

    def _begin(
        self,
        given: fleets.Fleet,
        by: str,
        now: float,
        *,
        back_to: int | None = None,
        force: bool = False,
    ) -> list[Command]:
        """Make a fleet the desired one; ``back_to``: the generation that wanted it before."""
        wanted = self._comparison.stamped(given)
        lines = [line for one in self._comparison.compare(wanted) for line in one.lines()]
        entry = fleets.FleetEntry(
            generation=self._generations.number + 1,
            action="apply" if back_to is None else "rollback",
            by=by,
            at=now + self._wall_offset,
            changes=(*([] if back_to is None else [f"as generation {back_to}"]), *lines),
        )
        kept = {
            name: record
            for name, record in self.status.copies.items()
            if wanted.get(name.partition("@")[0]) or self._registry.latest_named(name)
        }
        self._roll_out.begin()
        return self._generations.begin(entry, wanted, kept, force=force)

    def _pause(self, request: fleets.PauseFleet) -> list[Command]:
        by = request.by or "an operator"
        log = Log("info", f"fleet: {'paused' if request.paused else 'resumed'} by {by}")
        if request.paused:
            return [*self._generations.pause(f"by {by}"), log]
        failed = any(one.failed for one in self.status.copies.values())
        if self.status.paused is None and not failed:
            raise RequestRefused("conflict", "the fleet is not paused")
        self._roll_out.begin()
        return [*self._generations.resume(), log]

    # ----------------------------------------------------------------------- ticks

    def tick(self, now: float) -> list[Command]:
        """Observe the fleet, then start the steps that are possible now."""
        if self._generations.number == 0:
            return []
        view = self._observer.observe(now)
        self._comparison.forget()
        decision = view.decision
        commands = self._note(view, now)
        if decision.gives_up is not None:
            return [*commands, *self._give_up(decision.gives_up, now), *self._arm(now, 0.0)]
        for step in [
            *(self._next_step(view, name) for name in decision.act),
            *(self._check(view.copies[name]) for name in decision.check),
        ]:
            if step is not None:
                self._roll_out.track(step.copy).busy = True
                commands.append(step)
        is_settled = self.status.finished or self.status.paused is not None
        is_idle = is_settled and not any(
            one.differs or self._roll_out.is_busy(one.name, now) for one in view.seen
        )
        return [*commands, *self._arm(now, IDLE_TICK if is_idle else TICK)]

    def _arm(self, now: float, wait: float) -> list[Command]:
        return [ArmTimer(TimerKey("fleet"), now + wait)] if self._generations.number else []

    def _next_step(self, view: View, name: str) -> FleetStep | None:
        track = self._roll_out.track(name)
        track.held = None
        difference = view.differences[name]
        try:
            return step_towards(view.copies[name], difference, self._comparison, track.stepped_at)
        except Held as reason:
            track.held = str(reason)
            return None

    def _check(self, copy: Copy) -> FleetStep:
        number = copy.generation or 0
        check = fleets.CheckMachine(
            command=self._generations.fleet.rollout.check or "",
            machine=copy.machine or "",
            dataflow=copy.name,
            generation=number,
        )
        return FleetStep(copy.name, number, check)

    # --------------------------------------------------------------------- results

    def _note(self, view: View, now: float) -> list[Command]:
        """Record the observations; store those that changed."""
        records = {}
        for one in view.seen:
            if update := self._observed_changes(one, view, now):
                record = self._generations.record(one.name)
                records[one.name] = record.model_copy(update=update)
        decision = view.decision
        commands = [*self._explain(decision.failed, now), *self._generations.save_records(records)]
        outcome, summary = self._generations.outcome, self._summary(view)
        if self.status.finished and "; " in outcome and outcome != summary:
            commands += self._generations.end(summary)
        if decision.is_done:
            commands += self._generations.finish(summary)
        return commands

    def _observed_changes(self, one: Seen, view: View, now: float) -> dict[str, object]:
        """Return the updates of the record of a dataflow."""
        copy, record = view.copies[one.name], self._generations.record(one.name)
        live, desired = self._registry.live_named(one.name), copy.generation
        update: dict[str, object] = {}
        if desired is not None and not one.differs and record.reached < desired:
            # a step for an earlier generation may still change it
            is_busy = self._roll_out.track(one.name).busy
            if not is_busy and live is not None and live.phase is Phase.RUNNING:
                update["reached"] = desired
        if one.name in view.decision.healthy:
            update["healthy"] = desired
        if one.name in view.decision.failed:
            update["failed"] = view.decision.failed[one.name]
        if live is not None:
            by_hand = bool(self._comparison.changes_by_hand(copy, live))
        else:
            ended = self._registry.latest_named(one.name)
            by_hand = desired is not None and ended is not None and ended.stop_requested
        if by_hand != (record.by_hand_at is not None):
            update["by_hand_at"] = now + self._wall_offset if by_hand else None
        return update

    def _summary(self, view: View) -> str:
        left = [one for one in view.seen if one.differs and not one.connected]
        off = sorted({one.machine for one in left if one.machine is not None})
        unplaced = sorted(one.name for one in left if one.machine is None)
        record = self._generations.record
        failed = sorted({one.unit for one in view.seen if record(one.name).failed})
        text = "done"
        text += f"; failed: {', '.join(failed)}" if failed else ""
        text += f"; off, follow when they return: {', '.join(off)}" if off else ""
        return text + (f"; cannot be placed yet: {', '.join(unplaced)}" if unplaced else "")

    def _give_up(self, reason: str, now: float) -> list[Command]:
        """Return to the previous generation, or wait for an operator."""
        generations, present = self._generations, self._generations.present
        number, rollout = generations.number, generations.fleet.rollout
        previous = generations.get(number - 1)
        log = Log("warning", f"fleet: generation {number} failed: {reason}")
        is_apply = present is not None and present.entry.action == "apply"
        wants_rollback = rollout.on_failure == "rollback"
        if wants_rollback and is_apply and previous is not None and previous.fleet is not None:
            outcome = f"failed: {reason}; rolled back by generation {number + 1}"
            saved = generations.end(outcome)
            fleet = previous.fleet.model_copy(update={"rollout": rollout.for_return()})
            by = f"roll-out of generation {number}"
            return [log, *saved, *self._begin(fleet, by, now, back_to=number - 1)]
        return [log, *generations.pause(f"it failed: {reason}")]

    def step_ended(self, event: FleetStepEnded, now: float) -> list[Command]:
        """Note how a step ended, and decide again."""
        step, problem, name = event.step, event.problem, event.step.copy
        if name not in self._roll_out.tracks:
            return []
        copies = {copy.name: copy for copy in self._comparison.copies(self._generations.fleet)}
        copy = copies.get(name)
        is_present = copy is not None and copy.generation == (step.generation or None)
        if problem is None:
            passed = step.kind == "check" and is_present
            self._roll_out.step_ended(name, now, check_passed=passed)
            saved = self._note_start(step) if step.kind == "start" else []
            return [*saved, *self._arm(now, 0.0)]
        dataflow = self._registry.live_named(name)
        if copy is None or not is_present:
            self._roll_out.step_ended(name, now)
            return []
        if event.code in _LATER or not self._observer.is_connected(copy, dataflow):
            self._roll_out.step_ended(name, now, refusal=problem.replace("\n", "; "))
            return []
        self._roll_out.step_ended(name, now)
        failed = self._generations.record(name).model_copy(update={"failed": problem})
        saved = self._generations.save_records({name: failed})
        explained = self._explain({name: problem}, now)
        log = Log("warning", f"fleet: {name}: {problem}")
        return [*saved, log, *explained, *self._arm(now, 0.0)]

    def _explain(self, failed: Mapping[str, str], now: float) -> list[Command]:
        """Add to the histories of dataflows why the roll-out failed."""
        found = {name: self._registry.latest_named(name) for name in failed}
        history, number = self._registry.history, self._generations.number
        return [
            history.roll_out_failed(dataflow, number, failed[name], now)
            for name, dataflow in found.items()
            if dataflow is not None
        ]

    def _note_start(self, step: FleetStep) -> list[Command]:
        """Remember that a dataflow was started: it may have ended already."""
        record = self._generations.record(step.copy)
        if record.reached >= step.generation:
            return []
        started = record.model_copy(update={"reached": step.generation})
        return self._generations.save_records({step.copy: started})

    # ---------------------------------------------------------------------- report

    def report(self, now: float) -> fleets.FleetReport:
        """Return the desired and the observed fleet."""
        present = self._generations.present
        if present is None:
            return fleets.FleetReport(paused=self.status.paused)
        view, entry = self._observer.observe(now), present.entry
        return fleets.FleetReport(
            generation=entry.generation,
            by=entry.by,
            at=entry.at,
            outcome=entry.outcome,
            paused=self.status.paused,
            settled=self.status.finished or self.status.paused is not None,
            batch=view.decision.batch,
            batches=view.decision.batches,
            waits_for=view.decision.waits_for,
            copies=tuple(
                observed_copy(one, view, self._comparison, self._roll_out) for one in view.seen
            ),
        )
