"""Status of a dataflow as lists show it, and its reason; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from dora_config.protocol.control import DataflowStatus
from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.links.links import Links
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import PartState, Phase


def status_of(
    phase: Phase,
    reasons: tuple[str | None, str | None],
    parts: Sequence[Part],
    links: Links,
    membership: Membership,
) -> tuple[DataflowStatus, str | None]:
    """``reasons``: why it failed as a whole; why it was stopped, unless a user requested it."""
    failure, stop_reason = reasons
    match phase:
        case Phase.PREPARING | Phase.LINKING | Phase.RELEASING:
            return "Starting", None
        case Phase.RECOVERING:
            waiting = [part for part in parts if not part.ended and not part.reported]
            return "Recovering", f"waiting for {names(waiting)}" if waiting else None
        case Phase.STOPPING | Phase.ROLLING_BACK:
            return "Stopping", failure or stop_reason
        case Phase.FINISHED:
            return "Finished", stop_reason
        case Phase.FAILED:
            return "Failed", failure or _part_failures(parts, stop_reason)
        case Phase.RUNNING:
            left = [part for part in parts if not part.ended]
            return _while_running(left, links, membership)
        case _ as unreachable:
            assert_never(unreachable)


def _while_running(
    left: Sequence[Part], links: Links, membership: Membership
) -> tuple[DataflowStatus, str | None]:
    disconnected = [part for part in left if not membership.is_connected(part.daemon)]
    if disconnected:
        return "Degraded", f"no connection to {names(disconnected)}"
    respawning = [part for part in left if part.state is not PartState.RUNNING]
    if respawning:
        return "Recovering", f"spawning again on {names(respawning)}"
    problems = [f'daemon "{part.daemon}": {part.problem}' for part in left if part.problem]
    if problems:
        return "Degraded", "; ".join(problems)
    if links.all_linked:
        return "Running", None
    reason = links.degraded()
    return ("Degraded", reason) if reason else ("Recovering", "machines are being linked")


def _part_failures(parts: Sequence[Part], stop_reason: str | None) -> str | None:
    """Return the first line of each part's error and the nodes that failed."""
    results = [(part.daemon, part.result) for part in parts if part.result is not None]
    reasons = [] if stop_reason is None else [stop_reason]
    reasons += [
        f'daemon "{daemon}": {result.error.splitlines()[0]}'
        for daemon, result in results
        if result.error
    ]
    failed = [node.node for _, result in results for node in result.root_causes]
    if failed:
        reasons.append(f"failed: {', '.join(failed)}")
    return "; ".join(reasons) or None
