"""Engine of roll-outs: which machines may change now, and whether a change has succeeded; pure.

`dora cluster apply` and `dora cluster upgrade` use it: the caller observes, carries out steps, and
reports their ends. Its decisions follow from what is desired, stored and observed, so that an
interrupted roll-out continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dora_config.cluster.fleet import Rollout
from dora_config.retry import Retry, RetryPolicy

REFUSED = RetryPolicy(first=2.0, longest=2.0)
"""Policy for steps that were refused for now."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Observed unit of a roll-out: a dataflow, its copy on a machine, or a machine's software."""

    name: str
    machine: str | None
    """None: a dataflow of one or several machines, which is placed by its nodes."""
    affected: bool = True
    """Whether this roll-out changes the unit; others follow without waves."""
    removed: bool = False
    """Whether the unit is to be stopped."""
    differs: bool = False
    connected: bool = True
    ended: bool = False
    """Whether the unit has run as desired and ended with success."""
    processes: object = None
    """Identity of the unit's processes while all of them are ready; None: not all are ready."""
    unready: str = ""
    """Why the processes are not ready."""
    trouble: str | None = None
    """Failure since the change."""
    held: str | None = None
    """Node that holds updates, with its reason; a step in progress waits for it."""
    healthy: bool = False
    """Whether the unit has become healthy in this roll-out."""
    failed: str | None = None
    """Why the unit has failed."""

    @property
    def unit(self) -> str:
        """Id of the machine, or of a dataflow without one, whose units change together."""
        return self.machine or f"dataflow {self.name}"


@dataclass(slots=True)
class Track:
    """State of one unit that is kept only in memory."""

    busy: bool = False
    """Whether a step of the unit is being carried out."""
    refusal: str = ""
    """Why the last step was refused for now."""
    held: str | None = None
    """Node that prevents the next step because it holds updates."""
    stepped_at: float = float("-inf")
    retry: Retry = field(default_factory=Retry)
    checked: bool = False
    """Whether the check command of the roll-out has succeeded."""
    processes: object = None
    since: float = 0.0
    """Time at which ``processes`` were first seen."""
    open_since: float | None = None
    """Time since which the unit may change and its machine is connected."""


@dataclass(slots=True)
class Decision:
    act: list[str] = field(default_factory=list)
    """Units whose next step is to be carried out."""
    opened: list[str] = field(default_factory=list)
    """Units that may change."""
    check: list[str] = field(default_factory=list)
    """Units whose check is to be run."""
    healthy: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Reason of each failure that was not reported before."""
    is_done: bool = False
    """Whether all connected machines have changed."""
    is_stuck: bool = False
    """Whether only disconnected machines are left."""
    gives_up: str | None = None
    """Why the roll-out has failed."""
    waits_for: str = ""
    batch: int = 0
    """Batches that have begun, of ``batches``."""
    batches: int = 0


@dataclass(eq=False)
class RollOut:
    """Decides about one roll-out after another."""

    keep_going: bool = False
    """Continue after failures."""
    tracks: dict[str, Track] = field(default_factory=dict, init=False)

    def begin(self) -> None:
        """Begin another roll-out, or retry the failed units."""
        for track in self.tracks.values():
            track.open_since, track.refusal, track.checked = None, "", False
            track.retry.reset()

    def track(self, name: str) -> Track:
        return self.tracks.setdefault(name, Track())

    def is_busy(self, name: str, now: float) -> bool:
        """Return whether a step is being carried out, or was refused a moment ago."""
        track = self.track(name)
        return track.busy or track.retry.wait(now) > 0

    def step_ended(
        self, name: str, now: float, *, refusal: str = "", check_passed: bool = False
    ) -> None:
        """Record the end of a step; ``refusal``: why it is retried."""
        track = self.track(name)
        track.busy, track.stepped_at, track.refusal = False, now, refusal
        track.checked = track.checked or check_passed
        if refusal:
            track.retry.failed(REFUSED, now)
        else:
            track.retry.reset()

    def decide(
        self,
        rollout: Rollout,
        seen: Sequence[Seen],
        now: float,
        *,
        finished: bool = False,
        paused: bool = False,
    ) -> Decision:
        """Return the next decision; ``finished``: the roll-out has ended, late machines follow."""
        for one in seen:
            track = self.track(one.name)
            if one.processes is None or one.processes != track.processes:
                track.processes, track.since = one.processes, now
        decision = Decision()
        if not paused:
            self._choose(rollout, seen, now, decision, finished=finished)
        may_change = {one.name for one in seen if one.connected} & set(decision.opened)
        for name, track in list(self.tracks.items()):
            if name not in may_change:
                track.open_since = None
            elif track.open_since is None:
                track.open_since = now
        for name in self.tracks.keys() - {one.name for one in seen}:
            if not self.tracks[name].busy:
                del self.tracks[name]
        return decision

    def _choose(
        self,
        rollout: Rollout,
        seen: Sequence[Seen],
        now: float,
        decision: Decision,
        *,
        finished: bool,
    ) -> None:
        chosen = [one for one in seen if not one.affected]
        affected = [one for one in seen if one.affected]
        chosen += affected if finished else self._opened(rollout, affected, now, decision)
        for one in chosen:
            decision.opened.append(one.name)
            has_failed = one.failed is not None or one.name in decision.failed
            may_act = one.differs and not has_failed and not self.is_busy(one.name, now)
            # a stop needs no connection: the machine receives it when it returns; only an attempt
            # shows whether a dataflow without a machine can be placed
            if may_act and (one.connected or one.removed or one.machine is None):
                decision.act.append(one.name)

    def _opened(
        self, rollout: Rollout, affected: Sequence[Seen], now: float, decision: Decision
    ) -> list[Seen]:
        """Return the units of the batches that have begun; record healthy and failed ones."""
        opened: list[Seen] = []
        # a machine of an earlier batch may return after one of a later batch has failed
        failed = {one.unit: f"{one.name}: {one.failed}" for one in affected if one.failed}
        found = batches(rollout, affected)
        decision.batches = len(found)
        for number, batch in enumerate(found):
            decision.batch = number + 1
            opened += batch
            for one in batch:
                self._judge(rollout, one, now, decision)
                if (reason := decision.failed.get(one.name)) is not None:
                    failed.setdefault(one.unit, f"{one.name}: {reason}")
            if len(failed) >= rollout.max_failed and not self.keep_going:
                decision.gives_up = "; ".join(failed.values())
                return opened
            left = [one for one in batch if not _passes(one, decision) and one.unit not in failed]
            if blocking := [one for one in left if one.connected]:
                decision.waits_for = ", ".join(sorted({one.unit for one in blocking}))
                return opened
            is_first = number == 0 and any(one.unit in rollout.first for one in batch)
            has_passed = any(_passes(one, decision) for one in batch)
            if is_first and left and not has_passed and not self.keep_going:
                decision.waits_for = f"one of {', '.join(rollout.first)}, which are off"
                decision.is_stuck = True
                return opened
        decision.is_done = True
        return opened

    def _judge(self, rollout: Rollout, one: Seen, now: float, decision: Decision) -> None:
        """Record whether a unit of a batch that has begun is healthy or has failed."""
        if one.removed or one.healthy or one.failed is not None:
            return
        track = self.track(one.name)
        is_stable = one.processes is not None and now - track.since >= rollout.healthy
        if one.trouble is not None:
            decision.failed[one.name] = one.trouble
        elif not one.differs and (one.ended or is_stable):
            if rollout.check is None or track.checked:
                decision.healthy.append(one.name)
                return
            if not self.is_busy(one.name, now):
                decision.check.append(one.name)
        waited = 0.0 if track.open_since is None or not one.connected else now - track.open_since
        if waited > rollout.deadline:
            held = track.held or one.held
            what, why = ("not changed", held) if held else ("not healthy", one.unready)
            reason = f"{what} within {rollout.deadline:g} s" + (f": {why}" if why else "")
            decision.failed.setdefault(one.name, reason)


def batches(rollout: Rollout, affected: Sequence[Seen]) -> list[list[Seen]]:
    """Return the batches of units that change together, in order."""
    chunks = rollout.batches(sorted({one.unit for one in affected}))
    return [[one for one in affected if one.unit in chunk] for chunk in chunks]


def _passes(one: Seen, decision: Decision) -> bool:
    return not one.differs if one.removed else one.healthy or one.name in decision.healthy
