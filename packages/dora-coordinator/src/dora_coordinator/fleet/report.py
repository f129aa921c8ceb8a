"""Report of what each dataflow of the fleet should run and runs, for operators; pure."""

from __future__ import annotations

from dora_config.cluster.rollout import RollOut, Seen
from dora_config.protocol import fleet as fleets
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.fleet.comparison import Comparison, Copy, clock
from dora_coordinator.fleet.observation import AT_REST, View
from dora_coordinator.state.records import Phase


def observed_copy(
    one: Seen, view: View, comparison: Comparison, roll_out: RollOut
) -> fleets.ObservedCopy:
    """Return the desired and the observed state of a dataflow."""
    copy, dataflow = view.copies[one.name], comparison.registry.latest_named(one.name)
    record = comparison.generations.record(one.name)
    ran = record.reached or (0 if dataflow is None else dataflow.spec.generation) or None
    state, detail = _state(one, view, comparison, roll_out)
    return fleets.ObservedCopy(
        name=one.name,
        machine=one.machine,
        desired=copy.generation,
        observed=ran if one.differs else copy.generation,
        state=state,
        detail=detail,
        held=tuple(
            f"{node.node}: {node.held}"
            for node in (() if dataflow is None else comparison.statuses(dataflow))
            if node.held is not None
        ),
    )


def _state(
    one: Seen, view: View, comparison: Comparison, roll_out: RollOut
) -> tuple[fleets.CopyState, str]:
    """Return the state of a dataflow, and its reason."""
    track, difference = roll_out.track(one.name), view.differences[one.name]
    dataflow = comparison.registry.latest_named(one.name)
    if one.failed is not None:
        return "failed", one.failed
    if difference.action == "ended":
        is_failure = dataflow is not None and dataflow.phase is Phase.FAILED
        return "failed" if is_failure else "ended", difference.why
    if not one.connected and one.machine is not None:
        return "off", ""
    if track.busy:
        return "changing", track.held or one.held or ""
    if one.differs and comparison.generations.status.paused is not None:
        return "paused", ""
    if one.differs:
        waits = view.decision.waits_for and one.name not in view.decision.opened
        later = f"for {view.decision.waits_for}" if waits else ""
        return "waiting", track.refusal or track.held or later
    if dataflow is not None:
        return _running_state(view.copies[one.name], dataflow, comparison)
    return "current", ""


def _running_state(
    copy: Copy, dataflow: Dataflow, comparison: Comparison
) -> tuple[fleets.CopyState, str]:
    """Return the state of a dataflow that a roll-out does not change now."""
    record = comparison.generations.record(copy.name)
    if failed := comparison.failed_nodes(dataflow):
        name, why = next(iter(failed.items()))
        return "failed", f'node "{name}" has failed: {why}'
    status, reason = dataflow.status()
    if status != "Running":
        return "unready", reason or status.lower()
    for node in comparison.statuses(dataflow):
        if node.status not in AT_REST:
            return "unready", f'node "{node.node}" is {node.status.lower()}'
    if by_hand := comparison.changes_by_hand(copy, dataflow):
        changes = ", ".join(map(str, by_hand))
        return "by hand", f"changed by hand{clock(record.by_hand_at)}: {changes}"
    if not comparison.generations.status.finished and record.healthy < (copy.generation or 0):
        return "checking", ""
    return "current", ""
