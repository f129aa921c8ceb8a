"""Desired state of the fleet: requests of operators, and steps towards it; pure.

What is desired is stored; everything else is observed at each tick, so that a coordinator that was
killed continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol import control, fleet as fleets, runner as protocol
from dora_config.protocol.builds import BuildDataflow, BuildSettings
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet_diff import (
    changes_by_hand,
    differences,
    next_step,
    restart_reason,
)
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.placement import place
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.fleet.rollout import Decision, Seen, decide
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import (
    ArmTimer,
    CarryOut,
    Command,
    FleetStep,
    Log,
    RequestRefused,
    SaveFleet,
)
from dora_coordinator.state.events import FleetStepEnded, StoreLoaded, TimerKey
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import Phase

KEPT_FLEETS: Final = 20
"""Generations to which a rollback is possible."""
KEPT_ENTRIES: Final = 200
"""Generations in the history."""
TICK: Final = 0.5
"""Seconds between decisions during a roll-out."""
IDLE_TICK: Final = 2.0
RETRY: Final = 2.0
"""Seconds until a step that was refused for now is tried again."""
_LATER: Final = frozenset({"conflict", "placement", "unavailable", "ambiguous"})
"""Codes of refusals that do not fail a roll-out."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One dataflow that is desired or runs."""

    name: str
    machine: str | None
    spec: DataflowSpec | None
    """None: to be stopped."""

    @property
    def generation(self) -> int | None:
        return None if self.spec is None else self.spec.generation


@dataclass(slots=True)
class _Watch:
    """What is remembered of a copy until the coordinator ends."""

    busy: bool = False
    retry_at: float = 0.0
    refusal: str = ""
    """Why the last step was refused for now."""
    held: str | None = None
    """Which node prevents the next step, and why."""
    stepped_at: float = float("-inf")
    fingerprint: object = None
    since: float = 0.0
    """Since when it has that fingerprint."""
    open_since: float | None = None
    checked: int = 0
    """Generation whose check succeeded."""
    by_hand: tuple[object, object, tuple[fleets.NodeDifference, ...]] | None = None
    """Last comparison with what its generation wants, with the two specifications."""


@dataclass(slots=True)
class _View:
    """Everything that one tick observes."""

    copies: dict[str, _Copy] = field(default_factory=dict)
    differences: dict[str, fleets.CopyDifference] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)


@dataclass(eq=False)
class FleetControl:
    _registry: DataflowRegistry
    _membership: Membership
    _settings: Settings
    _wall_offset: float = 0.0
    status: fleets.FleetStatus = field(default_factory=fleets.FleetStatus, init=False)
    _generations: dict[int, fleets.StoredGeneration] = field(default_factory=dict, init=False)
    _watches: dict[str, _Watch] = field(default_factory=dict, init=False)
    _specs: dict[tuple[int, str], tuple[object, DataflowSpec]] = field(
        default_factory=dict, init=False
    )

    def load(self, loaded: StoreLoaded, now: float) -> list[Command]:
        """Continue with what an earlier coordinator stored."""
        self.status = loaded.fleet or fleets.FleetStatus()
        self._generations = {one.entry.generation: one for one in loaded.generations}
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
        found = tuple(self._compare(self._stamped(wanted)))
        differs = any(one.lines() for one in found) or not self._is_desired(wanted)
        generation = self.status.generation
        known = self._labels().keys() | self._membership.identities.machines()
        return fleets.FleetComparison(
            generation=generation, copies=found, differs=differs, machines=tuple(sorted(known))
        )

    def history(self) -> fleets.FleetHistory:
        entries = [one.entry for _, one in sorted(self._generations.items())]
        return fleets.FleetHistory(generations=tuple(entries))

    def _apply(self, request: fleets.ApplyFleet, now: float) -> list[Command]:
        present = self.status.generation
        if request.generation != present:
            entry = self._generations[present].entry
            at = datetime.fromtimestamp(entry.at, UTC).strftime("%H:%M:%S")
            raise RequestRefused(
                "conflict",
                f"{entry.by} applied generation {present} at {at} UTC, after {request.by or 'you'}"
                f" compared with generation {request.generation}; compare again with"
                " `dora cluster diff`",
            )
        self._require_not_paused()
        self._require_checks_allowed(request.fleet.rollout)
        given = self._wanted(request.fleet, request.only)
        wanted = self._stamped(given)
        lines = [line for one in self._compare(wanted) for line in one.lines()]
        if not lines and self._is_desired(given) and self.status.paused is None:
            return []
        entry = fleets.FleetEntry(
            generation=present + 1,
            by=request.by,
            at=now + self._wall_offset,
            changes=tuple(lines),
        )
        return self._begin(entry, wanted, force=request.force)

    def _require_not_paused(self) -> None:
        """An operator's pause ends with `resume` only; after a failure a change may follow."""
        paused = self.status.paused
        if paused is not None and paused.startswith("by "):
            raise RequestRefused(
                "conflict", f"the fleet was paused {paused}; run `dora cluster resume` first"
            )

    def _last_good(self) -> int:
        """Return the newest earlier generation that did not fail and is another one; 0: none."""
        for number, one in sorted(self._generations.items(), reverse=True):
            if number == self.status.generation or one.fleet is None:
                continue
            if "failed" not in one.entry.outcome and not self._is_desired(one.fleet):
                return number
        return 0

    def _require_checks_allowed(self, rollout: fleets.Rollout) -> None:
        if rollout.check is not None and not self._settings.fleet_checks:
            raise RequestRefused(
                "failed",
                "`rollout: {check: ...}` would run a command on the coordinator's machine, which"
                " is not allowed; start the coordinator with --set fleet_checks=1, or remove"
                " `check`",
            )

    def _roll_back(self, request: fleets.RollBackFleet, now: float) -> list[Command]:
        self._require_not_paused()
        present = self.status.generation
        to = self._last_good() if request.to is None else request.to
        target = self._generations.get(to)
        if target is None or target.fleet is None or to == present:
            possible = [
                str(number)
                for number, one in sorted(self._generations.items())
                if one.fleet is not None and number != present
            ]
            listed = ", ".join(possible) or "none"
            raise RequestRefused(
                "not_found", f"no rollback to generation {to} is possible; generations: {listed}"
            )
        self._require_checks_allowed(target.fleet.rollout)
        return self._return_to(target, request.by, now, target.fleet.rollout)

    def _return_to(
        self, target: fleets.StoredGeneration, by: str, now: float, rollout: fleets.Rollout
    ) -> list[Command]:
        assert target.fleet is not None
        wanted = self._stamped(target.fleet.model_copy(update={"rollout": rollout}))
        lines = [line for one in self._compare(wanted) for line in one.lines()]
        entry = fleets.FleetEntry(
            generation=self.status.generation + 1,
            action="rollback",
            by=by,
            at=now + self._wall_offset,
            changes=(f"as generation {target.entry.generation}", *lines),
        )
        return self._begin(entry, wanted)

    def _begin(
        self, entry: fleets.FleetEntry, fleet: fleets.Fleet, *, force: bool = False
    ) -> list[Command]:
        """Make a fleet the desired one."""
        number = entry.generation
        changed = [self._generations[number - 1]] if number - 1 in self._generations else []
        changed = [
            _with_outcome(one, f"replaced by generation {number}")
            for one in changed
            if not self.status.finished
            and one.entry.outcome == fleets.FleetEntry(generation=0).outcome
        ]
        changed.append(fleets.StoredGeneration(entry=entry, fleet=fleet))
        if (old := self._generations.get(number - KEPT_FLEETS)) is not None:
            changed.append(old.model_copy(update={"fleet": None}))
        for one in changed:
            self._generations[one.entry.generation] = one
        gone = tuple(old for old in self._generations if old <= number - KEPT_ENTRIES)
        for generation in gone:
            del self._generations[generation]
        kept = {
            name: record.model_copy(update={"failed": None})
            for name, record in self.status.copies.items()
            if fleet.get(name.partition("@")[0]) or self._registry.latest_named(name)
        }
        self.status = fleets.FleetStatus(
            generation=number, finished=False, force=force, copies=kept
        )
        for watch in self._watches.values():
            watch.open_since, watch.retry_at, watch.refusal = None, 0.0, ""
        text = f"fleet: generation {number} ({entry.action} by {entry.by or 'unknown'})"
        return [SaveFleet(self.status, tuple(changed), gone), Log("info", text)]

    def _pause(self, request: fleets.PauseFleet) -> list[Command]:
        word = "pause" if request.paused else "resume"
        if self.status.generation == 0:
            raise RequestRefused("conflict", f"nothing was applied: there is nothing to {word}")
        failed = any(one.failed for one in self.status.copies.values())
        if not request.paused and self.status.paused is None and not failed:
            number = self.status.generation
            raise RequestRefused("conflict", f"generation {number} is not paused")
        reason = f"by {request.by or 'an operator'}" if request.paused else None
        copies = self.status.copies
        if not request.paused:  # what failed is tried again
            copies = {name: one.model_copy(update={"failed": None}) for name, one in copies.items()}
            for watch in self._watches.values():
                watch.open_since = None
        update = {"paused": reason, "copies": copies}
        self.status = self.status.model_copy(update=update)
        word = "paused" if request.paused else "resumed"
        return [self._save("in progress" if reason is None else f"paused {reason}"),
                Log("info", f"fleet: {word} by {request.by or 'an operator'}")]  # fmt: skip

    def _save(self, outcome: str | None = None) -> Command:
        """Store the status, with the outcome of the present generation unless it was finished."""
        number = self.status.generation
        stored = self._generations.get(number)
        if outcome is None or stored is None or self.status.finished:
            return SaveFleet(self.status)
        return self._save_outcome(outcome)

    def _save_outcome(self, outcome: str) -> Command:
        number = self.status.generation
        changed = _with_outcome(self._generations[number], outcome)
        self._generations[number] = changed
        return SaveFleet(self.status, (changed,))

    # ------------------------------------------------------------------- comparing

    @property
    def _fleet(self) -> fleets.Fleet:
        stored = self._generations.get(self.status.generation)
        return stored.fleet if stored is not None and stored.fleet is not None else fleets.Fleet()

    def _wanted(self, given: fleets.Fleet, only: tuple[str, ...]) -> fleets.Fleet:
        """Return the present fleet with these dataflows changed; none: the given one."""
        for name in only:
            if given.get(name) is None and self._fleet.get(name) is None:
                known = ", ".join(one.name for one in self._fleet.dataflows) or "none"
                raise RequestRefused(
                    "not_found", f'--only "{name}": no such dataflow in the file; applied: {known}'
                )
        return self._fleet.with_only(given, only)

    def _stamped(self, wanted: fleets.Fleet) -> fleets.Fleet:
        """Return a fleet whose dataflows have the generation that changes them.

        A dataflow that is equal but was stopped or failed is started again by a new generation.
        """
        number = self.status.generation + 1
        found = []
        for one in wanted.dataflows:
            present = self._fleet.get(one.name)
            same = present is not None and present.content() == one.content()
            stamp = present.spec.generation if present is not None and same else number
            stamped = one.at_generation(stamp)
            if same and any(
                self._must_change(copy) for copy in self._copies_of(stamped, self._labels())
            ):
                stamped = one.at_generation(number)
            found.append(stamped)
        return wanted.model_copy(update={"dataflows": tuple(found)})

    def _is_desired(self, wanted: fleets.Fleet) -> bool:
        """Return whether the present generation wants the same."""
        present = {one.name: one.content() for one in self._fleet.dataflows}
        return present == {one.name: one.content() for one in wanted.dataflows}

    def _must_change(self, copy: _Copy) -> bool:
        """Return whether the next apply changes a dataflow although its description is the same."""
        dataflow = self._registry.latest_named(copy.name)
        if dataflow is None:
            return self._has_run(copy)
        if not dataflow.has_ended:
            failed = self._failed_nodes(dataflow)
            return bool(failed or self._changes_by_hand(copy, dataflow))
        by_itself = dataflow.phase is Phase.FINISHED and not dataflow.stop_requested
        return self._has_run(copy) and not by_itself

    def _has_run(self, copy: _Copy) -> bool:
        """Return whether the desired generation has run, and so is not started again."""
        return self._record(copy.name).reached >= (copy.generation or 0)

    def _statuses(self, dataflow: Dataflow) -> Iterator[protocol.NodeStatus]:
        """Yield the nodes of a dataflow as their machines reported them last."""
        for part in dataflow.parts.left():
            member = self._membership.get(part.daemon)
            metrics = None if member is None else member.metrics.get(dataflow.id)
            yield from () if metrics is None else metrics.nodes

    def _has_reported(self, dataflow: Dataflow, *, since: float) -> bool:
        """Return whether all machines of a dataflow have reported its nodes after that time."""
        members = [self._membership.get(part.daemon) for part in dataflow.parts.left()]
        return all(
            one is not None and dataflow.id in one.metrics and one.metrics_at > since
            for one in members
        )

    def _failed_nodes(self, dataflow: Dataflow) -> dict[str, str]:
        """Return why nodes failed, without dynamic ones."""
        running = {
            node.node: node.error or "see its log" for node in self._nodes_with("Failed", dataflow)
        }
        return running | _failed_parts(dataflow)

    def _nodes_with(
        self, status: protocol.ShownState, dataflow: Dataflow
    ) -> list[protocol.NodeStatus]:
        """Return the nodes with a status, without dynamic ones, which users start and end."""
        found = self._statuses(dataflow)
        return [one for one in found if one.status == status and not one.dynamic]

    def _changes_by_hand(
        self, copy: _Copy, dataflow: Dataflow
    ) -> tuple[fleets.NodeDifference, ...]:
        """Return what was changed in a running dataflow since it reached its generation."""
        running, wanted = dataflow.spec, copy.spec
        if wanted is None or dataflow.phase is not Phase.RUNNING or not self._has_run(copy):
            return ()
        watch = self._watches.setdefault(copy.name, _Watch())
        known = watch.by_hand
        if known is None or known[0] is not running or known[1] is not wanted:
            known = watch.by_hand = (running, wanted, changes_by_hand(wanted, running))
        stopped = [
            fleets.NodeDifference(node=one.node, action="stopped")
            for one in self._nodes_with("Stopped", dataflow)
        ]
        return (*known[2], *stopped)

    def _record(self, name: str) -> fleets.CopyRecord:
        return self.status.copies.get(name) or fleets.CopyRecord()

    def _labels(self) -> dict[str, Mapping[str, str]]:
        """Return the labels of the known machines."""
        return {
            member.register.machine_id: member.register.labels
            for member in self._membership.all()
            if member.register.machine_id is not None
        }

    def _copies_of(
        self, one: fleets.DesiredDataflow, labels: Mapping[str, Mapping[str, str]]
    ) -> Iterator[_Copy]:
        if not one.is_copied:
            yield _Copy(one.name, None, one.spec)
            return
        machines = set(one.machines_of(labels))
        if one.labels is not None:  # a machine that was off for long is not known any more
            prefix = f"{one.name}@"
            names = [dataflow.name or "" for dataflow in self._registry.live()]
            running = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
            machines |= {machine for machine in running if machine not in labels}
        for machine in sorted(machines):
            key = (id(one), machine)
            cached = self._specs.get(key)
            if cached is None or cached[0] is not one:
                cached = self._specs[key] = (one, one.copy_for(machine))
            yield _Copy(f"{one.name}@{machine}", machine, cached[1])

    def _copies(self, fleet: fleets.Fleet) -> Iterator[_Copy]:
        """Yield all that should run, and then what runs and should not."""
        labels, names = self._labels(), set()
        for one in fleet.dataflows:
            for copy in self._copies_of(one, labels):
                names.add(copy.name)
                yield copy
        for dataflow in self._registry.live():
            name = dataflow.name or ""
            if name not in names and (dataflow.spec.generation or name in self.status.copies):
                machine = name.rpartition("@")[2] if "@" in name else None
                yield _Copy(name, machine, None)

    def _compare(self, fleet: fleets.Fleet) -> list[fleets.CopyDifference]:
        present = {copy.name: copy for copy in self._copies(self._fleet)}
        found = []
        for copy in self._copies(fleet):
            difference = self._difference(copy)
            before, dataflow = present.get(copy.name), self._registry.live_named(copy.name)
            if before is not None and dataflow is not None and difference.action != "equal":
                by_hand = self._changes_by_hand(before, dataflow)
                at = _clock(self._record(copy.name).by_hand_at)
                difference = difference.model_copy(update={"by_hand": by_hand, "by_hand_at": at})
            found.append(difference)
        return found

    def _difference(self, copy: _Copy) -> fleets.CopyDifference:
        dataflow = self._registry.latest_named(copy.name)
        base = fleets.CopyDifference(name=copy.name, machine=copy.machine, action="equal")
        if copy.spec is None:
            lives = dataflow is not None and not dataflow.has_ended
            where = "" if copy.machine is None else f' for machine "{copy.machine}"'
            why = f"it is not in the file{where}"
            return base.model_copy(update={"action": "stop", "why": why} if lives else {})
        if dataflow is None:
            ended = {"action": "ended", "why": "it was removed from the list of dataflows"}
            return base.model_copy(update=ended if self._has_run(copy) else {"action": "start"})
        if dataflow.has_ended:
            if dataflow.waits_to_restart:
                return base
            if self._has_run(copy):
                why = self._end(dataflow, copy)
                return base.model_copy(update={"action": "ended", "why": why})
            why = f"it has ended: {self._end(dataflow, copy)}"
            return base.model_copy(update={"action": "start", "why": why})
        if dataflow.phase in (Phase.STOPPING, Phase.ROLLING_BACK):
            return base.model_copy(update={"action": "restart", "why": "it is being stopped"})
        if self._has_run(copy):  # what differs was changed by hand, and stays until an apply
            return base
        if (reason := restart_reason(dataflow.spec, copy.spec)) is not None:
            return base.model_copy(update={"action": "restart", "why": reason})
        nodes = differences(dataflow.spec, copy.spec)
        changed = {one.node for one in nodes if one.action in ("replaced", "removed")}
        ended = {one.node: "it was stopped" for one in self._nodes_with("Stopped", dataflow)}
        ended |= {
            node: f"it has failed: {why}" for node, why in self._failed_nodes(dataflow).items()
        }
        nodes += tuple(
            fleets.NodeDifference(node=node, action="started", detail=why)
            for node, why in ended.items()
            if node not in changed
        )
        return base.model_copy(update={"action": "change", "nodes": nodes}) if nodes else base

    def _end(self, dataflow: Dataflow, copy: _Copy) -> str:
        """Return how a dataflow ended."""
        status, reason = dataflow.status()
        record = self._record(copy.name)
        if dataflow.stop_requested and reason is None:
            if record.reached < dataflow.spec.generation or record.by_hand_at is None:
                return "it was stopped"  # by a roll-out
            return f"it was stopped by hand{_clock(record.by_hand_at)}"
        if reason is not None and dataflow.phase is Phase.FAILED:
            return reason
        return status.lower() if reason is None else f"{status.lower()}: {reason}"

    # ----------------------------------------------------------------------- ticks

    def tick(self, now: float) -> list[Command]:
        """Do what can be done now."""
        if self.status.generation == 0:
            return []
        view = self._observe(now)
        decision = decide(self.status, self._fleet.rollout, view.seen)
        commands = self._note(view, decision, now)
        if decision.gives_up is not None:
            return [*commands, *self._give_up(decision.gives_up, now), *self._arm(now, 0.0)]
        for name in decision.act:
            step = self._next_step(view.copies[name], view.differences[name])
            if step is not None:
                self._watches[name].busy = True
                commands.append(CarryOut(step))
        for name in decision.check:
            watch, copy = self._watches[name], view.copies[name]
            if not watch.busy:
                watch.busy = True
                check = self._fleet.rollout.check
                number = copy.generation or 0
                commands.append(CarryOut(FleetStep(name, number, copy.machine, check=check)))
        return [*commands, *self._arm(now, IDLE_TICK if self._is_idle(view) else TICK)]

    def _is_idle(self, view: _View) -> bool:
        is_settled = self.status.finished or self.status.paused is not None
        return is_settled and not any(one.differs or one.busy for one in view.seen)

    def _arm(self, now: float, wait: float) -> list[Command]:
        return [ArmTimer(TimerKey("fleet"), now + wait)] if self.status.generation else []

    def _observe(self, now: float) -> _View:
        view = _View()
        for copy in self._copies(self._fleet):
            watch = self._watches.setdefault(copy.name, _Watch())
            difference = self._difference(copy)
            view.copies[copy.name] = copy
            view.differences[copy.name] = difference
            view.seen.append(self._seen(copy, difference, watch, now))
        for name in self._watches.keys() - view.copies.keys():
            if not self._watches[name].busy:
                del self._watches[name]
        live = {id(one) for one in self._fleet.dataflows}
        self._specs = {key: one for key, one in self._specs.items() if key[0] in live}
        return view

    def _seen(
        self, copy: _Copy, difference: fleets.CopyDifference, watch: _Watch, now: float
    ) -> Seen:
        dataflow = self._registry.latest_named(copy.name)
        connected = self._is_connected(copy, dataflow, watch)
        stable = trouble = None
        record = self._record(copy.name)
        if dataflow is not None and difference.action in ("equal", "ended"):
            if dataflow.has_ended and (dataflow.phase is Phase.FAILED or dataflow.stop_requested):
                trouble = self._end(dataflow, copy)
            elif not dataflow.has_ended:
                stable, trouble = self._health(dataflow, watch, now)
        else:
            watch.fingerprint = None
        rollout = self._fleet.rollout
        waiting = watch.open_since is not None and connected
        return Seen(
            name=copy.name,
            machine=copy.machine,
            desired=copy.generation,
            differs=difference.action in ("start", "stop", "change", "restart"),
            connected=connected,
            busy=watch.busy or now < watch.retry_at,
            ended=difference.action == "ended" and trouble is None,
            stable=stable,
            trouble=trouble,
            held=watch.held or (self._held(dataflow) if watch.busy else None),
            open_for=now - watch.open_since if waiting and watch.open_since is not None else 0.0,
            checked=rollout.check is None or watch.checked == copy.generation,
            record=record,
        )

    def _is_connected(self, copy: _Copy, dataflow: Dataflow | None, watch: _Watch) -> bool:
        if copy.machine is not None:
            return self._membership.is_connected(copy.machine)
        if dataflow is None or dataflow.has_ended:
            return not watch.refusal
        return all(self._membership.is_connected(part.daemon) for part in dataflow.parts.left())

    def _health(
        self, dataflow: Dataflow, watch: _Watch, now: float
    ) -> tuple[float | None, str | None]:
        """Return for how long a dataflow has been stable, and what failed in it."""
        if dataflow.status()[0] != "Running":
            watch.fingerprint = None
            return None, None
        if self._fleet.rollout.healthy == 0:
            return 0.0, None
        reported = self._has_reported(dataflow, since=watch.stepped_at)
        failed = self._failed_nodes(dataflow) if reported else _failed_parts(dataflow)
        if failed:
            watch.fingerprint = None
            return None, "; ".join(f'node "{node}" failed: {why}' for node, why in failed.items())
        if not reported:
            return None, None
        nodes = list(self._statuses(dataflow))
        if any(one.status not in ("Running", "Finished", "Stopped") for one in nodes):
            watch.fingerprint = None
            return None, None
        fingerprint = (dataflow.id, [(one.node, one.pid, one.restarts) for one in nodes])
        if watch.fingerprint != fingerprint:
            watch.fingerprint, watch.since = fingerprint, now
        return now - watch.since, None

    def _note(self, view: _View, decision: Decision, now: float) -> list[Command]:
        """Remember what was observed; store what has changed."""
        opened = set(decision.opened)
        records = dict(self.status.copies)
        for one in view.seen:
            watch = self._watches[one.name]
            if one.name not in opened or not one.connected:
                watch.open_since = None
            elif watch.open_since is None:
                watch.open_since = now
            record = self._record(one.name)
            update: dict[str, object] = {}
            if one.desired is not None and not one.differs and record.reached < one.desired:
                # a step for an earlier generation may still change it
                reached = None if watch.busy else self._registry.live_named(one.name)
                if reached is not None and reached.phase is Phase.RUNNING:
                    update["reached"] = one.desired
            if one.name in decision.healthy:
                update["healthy"] = one.desired
            if one.name in decision.failed:
                update["failed"] = decision.failed[one.name]
            live = self._registry.live_named(one.name)
            if live is not None:
                by_hand = bool(self._changes_by_hand(view.copies[one.name], live))
            else:
                ended = self._registry.latest_named(one.name)
                by_hand = one.desired is not None and ended is not None and ended.stop_requested
            if by_hand != (record.by_hand_at is not None):
                update["by_hand_at"] = now + self._wall_offset if by_hand else None
            if update:
                records[one.name] = record.model_copy(update=update)
        commands = self._explain(decision.failed, now)
        if records != self.status.copies:
            self.status = self.status.model_copy(update={"copies": records})
            commands.append(SaveFleet(self.status))
        outcome = self._generations[self.status.generation].entry.outcome
        if self.status.finished and "; " in outcome and outcome != self._summary(view):
            commands.append(self._save_outcome(self._summary(view)))
        if decision.is_done and decision.gives_up is None:
            outcome = self._summary(view)
            commands.append(self._save_outcome(outcome))
            self.status = self.status.model_copy(update={"finished": True})
            commands.append(SaveFleet(self.status))
            number = self.status.generation
            commands.append(Log("info", f"fleet: generation {number}: {outcome}"))
        return commands

    def _summary(self, view: _View) -> str:
        left = [one for one in view.seen if one.differs and not one.connected]
        off = sorted({one.machine for one in left if one.machine is not None})
        unplaced = sorted(one.name for one in left if one.machine is None)
        failed = sorted({one.unit for one in view.seen if self._record(one.name).failed})
        text = "done"
        text += f"; failed: {', '.join(failed)}" if failed else ""
        text += f"; off, follow when they return: {', '.join(off)}" if off else ""
        return text + (f"; cannot be placed yet: {', '.join(unplaced)}" if unplaced else "")

    def _give_up(self, reason: str, now: float) -> list[Command]:
        """Return to the previous generation, or wait for an operator."""
        number = self.status.generation
        entry = self._generations[number].entry
        previous = self._generations.get(number - 1)
        log = Log("warning", f"fleet: generation {number} failed: {reason}")
        wants_rollback = self._fleet.rollout.on_failure == "rollback"
        may_return = previous is not None and previous.fleet is not None
        if wants_rollback and may_return and previous and entry.action == "apply":
            outcome = f"failed: {reason}; rolled back by generation {number + 1}"
            saved = self._save_outcome(outcome)
            by = f"roll-out of generation {number}"
            return [log, saved, *self._return_to(previous, by, now, fleets.Rollout())]
        self.status = self.status.model_copy(update={"paused": f"it failed: {reason}"})
        return [log, self._save_outcome(f"paused, it failed: {reason}")]

    def _held(self, dataflow: Dataflow | None, name: str | None = None) -> str | None:
        """Return which node of a dataflow holds updates, and why; ``name``: only this one."""
        if dataflow is None:
            return None
        for node in self._statuses(dataflow):
            if node.held is not None and name in (None, node.node):
                return f'node "{node.node}" holds updates: {node.held}'
        return None

    # ----------------------------------------------------------------------- steps

    def _next_step(self, copy: _Copy, difference: fleets.CopyDifference) -> FleetStep | None:
        """Return the next step of a copy; None: it waits for what is in progress."""
        live, watch = self._registry.live_named(copy.name), self._watches[copy.name]
        number, watch.held = copy.generation or 0, None
        if difference.action == "start" and copy.spec is not None:
            request: control.ControlRequest = control.StartDataflow(spec=copy.spec)
            return FleetStep(copy.name, number, copy.machine, request, _build_of(copy.spec))
        if live is None or live.phase in (Phase.STOPPING, Phase.ROLLING_BACK):
            return None
        force = self.status.force
        hold = {"hold_limit": self._fleet.rollout.deadline, "force": force}
        if difference.action in ("stop", "restart"):
            watch.held = None if force else self._held(live)
            if watch.held is None and copy.spec is not None:
                watch.held = self._cannot_start(copy.spec)
            if watch.held is not None:
                return None
            return FleetStep(
                copy.name, number, copy.machine, control.StopDataflow(dataflow=live.id)
            )
        assert copy.spec is not None
        step = next_step(live.spec, copy.spec)
        if not force and isinstance(step, protocol.RemoveNode | protocol.ReplaceNode):
            node_id = step.node if isinstance(step, protocol.RemoveNode) else step.node.id
            watch.held = self._held(live, node_id)
            if watch.held is not None:
                return None
        match step:
            case None:
                stopped = [one.node for one in difference.nodes if one.action == "started"]
                if not stopped:
                    return None
                is_certain = stopped[0] in _failed_parts(live)
                if not is_certain and not self._has_reported(live, since=watch.stepped_at):
                    return None
                start = protocol.RestartNode(node=stopped[0], force=True)
                request = control.CallRunner(dataflow=live.id, node=stopped[0], request=start)
                return FleetStep(copy.name, number, copy.machine, request)
            case protocol.SetParam() as change:
                request = control.CallRunner(dataflow=live.id, node=change.node, request=change)
                return FleetStep(copy.name, number, copy.machine, request)
            case protocol.RemoveNode() as change:
                change = change.model_copy(update=hold)
                request = control.ChangeGraph(dataflow=live.id, change=change)
                return FleetStep(copy.name, number, copy.machine, request)
            case protocol.AddNode() | protocol.ReplaceNode() as change:
                if isinstance(change, protocol.ReplaceNode):
                    change = change.model_copy(update=hold)
                build = _build_of(copy.spec, change.node, replaces=live.id)
                request = control.ChangeGraph(dataflow=live.id, change=change)
                return FleetStep(copy.name, number, copy.machine, request, build)
            case change:
                request = control.ChangeGraph(dataflow=live.id, change=change)
                return FleetStep(copy.name, number, copy.machine, request)

    def _cannot_start(self, spec: DataflowSpec) -> str | None:
        """Return why a dataflow is not stopped for another start: that would fail."""
        try:
            place(spec, self._membership.connected())
        except RequestRefused as problem:
            return str(problem).replace("\n", "; ")
        return None

    def step_ended(self, event: FleetStepEnded, now: float) -> list[Command]:
        """Note how a step ended, and decide again."""
        watch = self._watches.get(event.copy)
        if watch is None:
            return []
        watch.busy = False
        watch.stepped_at = now
        watch.refusal = ""
        if event.problem is None:
            if event.kind == "check":
                watch.checked = event.generation
            saved = self._note_start(event) if event.kind == "start" else []
            return [*saved, *self._arm(now, 0.0)]
        watch.retry_at = now + RETRY
        copies = {copy.name: copy for copy in self._copies(self._fleet)}
        copy = copies.get(event.copy)
        if copy is None or copy.generation != (event.generation or None):
            return []  # of an earlier generation
        dataflow = self._registry.live_named(copy.name)
        if event.code in _LATER or not self._is_connected(copy, dataflow, watch):
            watch.refusal = event.problem.replace("\n", "; ")
            return []
        record = self._record(copy.name).model_copy(update={"failed": event.problem})
        copies_now = {**self.status.copies, copy.name: record}
        self.status = self.status.model_copy(update={"copies": copies_now})
        text = f"fleet: {copy.name}: {event.problem}"
        explained = self._explain({copy.name: event.problem}, now)
        return [SaveFleet(self.status), Log("warning", text), *explained, *self._arm(now, 0.0)]

    def _explain(self, failed: Mapping[str, str], now: float) -> list[Command]:
        """Add to the histories of dataflows why the roll-out failed."""
        found = {name: self._registry.latest_named(name) for name in failed}
        history, number = self._registry.history, self.status.generation
        return [
            history.roll_out_failed(dataflow, number, failed[name], now)
            for name, dataflow in found.items()
            if dataflow is not None
        ]

    def _note_start(self, event: FleetStepEnded) -> list[Command]:
        """Remember that a dataflow was started: it may have ended already."""
        record = self._record(event.copy)
        if record.reached >= event.generation:
            return []
        started = record.model_copy(update={"reached": event.generation})
        copies = {**self.status.copies, event.copy: started}
        self.status = self.status.model_copy(update={"copies": copies})
        return [SaveFleet(self.status)]

    # ---------------------------------------------------------------------- report

    def report(self, now: float) -> fleets.FleetReport:
        """Return what should run and what runs."""
        stored = self._generations.get(self.status.generation)
        if stored is None:
            return fleets.FleetReport()
        view = self._observe(now)
        decision = decide(self.status, self._fleet.rollout, view.seen)
        entry = stored.entry
        return fleets.FleetReport(
            generation=entry.generation,
            by=entry.by,
            at=entry.at,
            outcome=entry.outcome,
            paused=self.status.paused,
            settled=self.status.finished or self.status.paused is not None,
            batch=decision.batch,
            batches=decision.batches,
            waits_for=decision.waits_for,
            copies=tuple(self._observed(one, view, decision) for one in view.seen),
        )

    def _running_state(
        self, copy: _Copy, dataflow: Dataflow, record: fleets.CopyRecord
    ) -> tuple[fleets.CopyState, str]:
        """Return the state of a dataflow that a roll-out does not change now."""
        if failed := self._failed_nodes(dataflow):
            name, why = next(iter(failed.items()))
            return "failed", f'node "{name}" has failed: {why}'
        status, reason = dataflow.status()
        if status != "Running":
            return "unready", reason or status.lower()
        for node in self._statuses(dataflow):
            if node.status not in ("Running", "Finished", "Stopped"):
                return "unready", f'node "{node.node}" is {node.status.lower()}'
        if by_hand := self._changes_by_hand(copy, dataflow):
            changes = ", ".join(map(str, by_hand))
            return "by hand", f"changed by hand{_clock(record.by_hand_at)}: {changes}"
        if not self.status.finished and record.healthy < (copy.generation or 0):
            return "checking", ""
        return "current", ""

    def _observed(self, one: Seen, view: _View, decision: Decision) -> fleets.ObservedCopy:
        watch, difference = self._watches[one.name], view.differences[one.name]
        dataflow = self._registry.latest_named(one.name)
        record = self._record(one.name)
        ran = record.reached or (0 if dataflow is None else dataflow.spec.generation) or None
        state: fleets.CopyState = "current"
        detail = ""
        if record.failed is not None:
            state, detail = "failed", record.failed
        elif difference.action == "ended":
            state = "failed" if dataflow is not None and dataflow.phase is Phase.FAILED else "ended"
            detail = difference.why
        elif not one.connected and one.machine is not None:
            state = "off"
        elif watch.busy:
            state, detail = "changing", one.held or ""
        elif one.differs and self.status.paused is not None:
            state = "paused"
        elif one.differs:
            waits = decision.waits_for and one.name not in decision.opened
            later = f"for {decision.waits_for}" if waits else ""
            state, detail = "waiting", watch.refusal or watch.held or later
        elif dataflow is not None:
            state, detail = self._running_state(view.copies[one.name], dataflow, record)
        return fleets.ObservedCopy(
            name=one.name,
            machine=one.machine,
            desired=one.desired,
            observed=ran if one.differs else one.desired,
            state=state,
            detail=detail,
            held=tuple(
                f"{node.node}: {node.held}"
                for node in (() if dataflow is None else self._statuses(dataflow))
                if node.held is not None
            ),
        )


def _failed_parts(dataflow: Dataflow) -> dict[str, str]:
    """Return why nodes failed whose part has ended."""
    return {
        node.node: node.message
        for part in dataflow.parts.values()
        if part.result is not None
        for node in part.result.nodes
        if node.outcome == "failed" and node.node in part.nodes
    }


def _clock(at: float | None) -> str:
    return "" if at is None else f" at {datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"


def _with_outcome(stored: fleets.StoredGeneration, outcome: str) -> fleets.StoredGeneration:
    entry = stored.entry.model_copy(update={"outcome": outcome})
    return stored.model_copy(update={"entry": entry})


def _build_of(
    spec: DataflowSpec, node: ResolvedNode | None = None, replaces: str | None = None
) -> BuildDataflow | None:
    """Return the build of what was sent, on the machines of its nodes; None without code."""
    nodes = spec.resolved.nodes if node is None else (node,)
    sent = {one.id for one in nodes} & spec.code.keys()
    if not sent:
        return None
    built = tuple(
        one if one.id in sent else one.model_copy(update={"build": (), "git": None})
        for one in nodes
    )
    whole = spec.with_nodes(built).model_copy(update={"build_id": None, "places": {}})
    if node is not None:
        whole = whole.model_copy(
            update={"built_on": {}, "code": {node.id: spec.code[node.id]}, "name": None}
        )
    return BuildDataflow(spec=whole, settings=BuildSettings(parallel=True), replaces=replaces)
