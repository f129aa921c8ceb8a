"""The word that lists show for a dataflow, and the reason beside it; pure."""

from __future__ import annotations

from collections.abc import Sequence

from dora_config.protocol.control import DataflowStatus
from dora_coordinator.dataflow.linking import Links
from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.membership import Membership
from dora_coordinator.records import PartState, Phase


def status_of(
    phase: Phase,
    why: tuple[str | None, str | None],
    parts: Sequence[Part],
    links: Links,
    membership: Membership,
) -> tuple[DataflowStatus, str | None]:
    """``why``: why it failed as a whole, if it did; why it was stopped, if nobody asked for it."""
    reason, stopped_since = why
    match phase:
        case Phase.PREPARING | Phase.LINKING | Phase.RELEASING:
            return "Starting", None
        case Phase.RECOVERING:
            waiting = [part for part in parts if not part.ended and not part.reported]
            return "Recovering", f"waiting for {names(waiting)}" if waiting else None
        case Phase.STOPPING | Phase.ROLLING_BACK:
            return "Stopping", reason or stopped_since
        case Phase.FINISHED:
            return "Finished", stopped_since
        case Phase.FAILED:
            return "Failed", reason or _failures(parts, stopped_since)
        case Phase.RUNNING:
            living = [part for part in parts if not part.ended]
            return _while_running(living, links, membership)


def _while_running(
    living: Sequence[Part], links: Links, membership: Membership
) -> tuple[DataflowStatus, str | None]:
    away = [part for part in living if not membership.is_connected(part.daemon)]
    if away:
        return "Degraded", f"no connection to {names(away)}"
    respawning = [part for part in living if part.state is not PartState.RUNNING]
    if respawning:
        return "Recovering", f"spawning again on {names(respawning)}"
    if links.all_linked:
        return "Running", None
    reason = links.degraded()
    return ("Degraded", reason) if reason else ("Recovering", "machines are being linked")


def _failures(parts: Sequence[Part], stopped_since: str | None) -> str | None:
    """What the parts themselves say, the first line of each."""
    ended = [(part, part.result) for part in parts if part.result is not None]
    said = [] if stopped_since is None else [stopped_since]
    said += [
        f'daemon "{part.daemon}": {result.error.splitlines()[0]}'
        for part, result in ended
        if result.error
    ]
    failed = [node.node for _, result in ended for node in result.root_causes]
    if failed:
        said.append(f"failed: {', '.join(failed)}")
    return "; ".join(said) or None
