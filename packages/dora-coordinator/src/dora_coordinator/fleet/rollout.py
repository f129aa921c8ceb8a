"""Which machines may change now, and whether a roll-out has succeeded; pure.

The decision is derived from what is desired and observed: an interrupted roll-out continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dora_config.protocol.fleet import CopyRecord, FleetStatus, Rollout


@dataclass(frozen=True, slots=True)
class Seen:
    """One dataflow or copy as it is observed."""

    name: str
    machine: str | None
    """None: a dataflow of one or several machines, which is placed by its nodes."""
    desired: int | None
    """Generation that changed it last; None: it is to be stopped."""
    differs: bool = False
    connected: bool = True
    busy: bool = False
    """A step of it is being carried out, or was refused a moment ago."""
    ended: bool = False
    """It has run in this generation and ended with success."""
    stable: float | None = None
    """Seconds for which all of its nodes were ready without a restart; None: they are not."""
    trouble: str | None = None
    """What failed since it was changed."""
    held: str | None = None
    """Which node holds updates, so that it cannot be changed, and why."""
    open_for: float = 0.0
    """Seconds since it may change and its machine is connected."""
    checked: bool = True
    """Whether the command of the roll-out succeeded."""
    record: CopyRecord = field(default_factory=CopyRecord)

    @property
    def unit(self) -> str:
        """Machine, or dataflow without one: what changes together."""
        return self.machine or f"dataflow {self.name}"


@dataclass(slots=True)
class Decision:
    act: list[str] = field(default_factory=list)
    """Dataflows and copies whose next step is to be carried out."""
    opened: list[str] = field(default_factory=list)
    """Those that may change."""
    check: list[str] = field(default_factory=list)
    """Those whose check is to be run."""
    healthy: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Why each one failed that has not failed before."""
    is_done: bool = False
    """All machines that are connected run the generation."""
    gives_up: str | None = None
    """Why the roll-out has failed."""
    waits_for: str = ""
    batch: int = 0
    """Batches that have begun, of ``batches``."""
    batches: int = 0


def decide(status: FleetStatus, rollout: Rollout, seen: Sequence[Seen]) -> Decision:
    """Return what to do now."""
    decision = Decision()
    if status.paused is not None:
        return decision
    affected = [one for one in seen if one.desired in (None, status.generation)]
    chosen = [one for one in seen if one.desired not in (None, status.generation)]
    if status.finished:
        chosen += affected
    else:
        chosen += _opened(rollout, affected, decision)
    for one in chosen:
        decision.opened.append(one.name)
        may_act = one.differs and not one.busy and not _has_failed(one, decision)
        # a stop needs no connection: the machine gets it when it returns; whether a dataflow
        # without a machine can be placed is found by a try
        if may_act and (one.connected or one.desired is None or one.machine is None):
            decision.act.append(one.name)
    return decision


def _opened(rollout: Rollout, affected: Sequence[Seen], decision: Decision) -> list[Seen]:
    """Return those of the batches that have begun; note who is healthy or failed."""
    opened: list[Seen] = []
    failed: dict[str, str] = {}
    found = batches(rollout, affected)
    decision.batches = len(found)
    for number, batch in enumerate(found):
        decision.batch = number + 1
        opened += batch
        for one in batch:
            _judge(rollout, one, decision)
            if (reason := one.record.failed or decision.failed.get(one.name)) is not None:
                failed.setdefault(one.unit, f"{one.name}: {reason}")
        if len(failed) >= rollout.max_failed:
            decision.gives_up = "; ".join(failed.values())
            return opened
        left = [one for one in batch if not _is_promoted(one, decision) and one.unit not in failed]
        if blocking := [one for one in left if one.connected]:
            decision.waits_for = ", ".join(sorted({one.unit for one in blocking}))
            return opened
        is_first = number == 0 and any(one.unit in rollout.first for one in batch)
        if is_first and left and not any(_is_promoted(one, decision) for one in batch):
            decision.waits_for = f"one of {', '.join(rollout.first)}, which are off"
            return opened
    decision.is_done = True
    return opened


def batches(rollout: Rollout, affected: Sequence[Seen]) -> list[list[Seen]]:
    """Return what changes together, in order."""
    chunks = rollout.batches(sorted({one.unit for one in affected}))
    return [[one for one in affected if one.unit in chunk] for chunk in chunks]


def _judge(rollout: Rollout, one: Seen, decision: Decision) -> None:
    """Note whether one of the open batches has become healthy or failed."""
    if one.desired is None or one.record.healthy >= one.desired or one.record.failed is not None:
        return
    if one.trouble is not None:
        decision.failed[one.name] = one.trouble
    elif not one.differs and (
        one.ended or (one.stable is not None and one.stable >= rollout.healthy)
    ):
        if one.checked:
            decision.healthy.append(one.name)
        else:
            decision.check.append(one.name)
    if one.name not in (*decision.healthy, *decision.failed) and one.open_for > rollout.deadline:
        what = "not healthy" if one.held is None else "not changed"
        why = "" if one.held is None else f": {one.held}"
        decision.failed[one.name] = f"{what} within {rollout.deadline:g} s{why}"


def _is_promoted(one: Seen, decision: Decision) -> bool:
    if one.desired is None:
        return not one.differs
    return one.record.healthy >= one.desired or one.name in decision.healthy


def _has_failed(one: Seen, decision: Decision) -> bool:
    return one.record.failed is not None or one.name in decision.failed
