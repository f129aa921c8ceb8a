"""Phases preparing and linking: all parts are prepared and linked before any is released; pure.

Links connect as soon as all of them listen, while nodes are still being prepared. A failure rolls
back what was prepared.
"""

from __future__ import annotations

from dora_coordinator.dataflow import events
from dora_coordinator.dataflow.completion import (
    ended_early,
    late_start,
    stopped_with,
    unlinked_start,
)
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.part import names
from dora_coordinator.dataflow.stopping import roll_back
from dora_coordinator.links.links import Links
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import ArmTimer, CancelTimer, Command
from dora_coordinator.state.events import DataflowTimer
from dora_coordinator.state.records import PartState, Phase

MAX_CHECK_INTERVAL = 5.0
"""Seconds between two checks of the missing links, and so between two progress messages."""
CLOCK_PRECISION = 0.01
"""Seconds by which a timer may fire early."""


def handle(data: DataflowData, event: events.PhaseEvent, now: float) -> list[Command]:
    match event:
        case events.StartAccepted():
            return [
                *(data.prepare(part) for part in data.parts.values()),
                ArmTimer(data.timer("start"), now + data.settings.start_timeout),
            ]
        case events.PartReported():
            return _part_reported(data, event, now)
        case events.PartGone(daemon=daemon, message=lost):
            data.end_part(data.parts[daemon], lost.result)
            where = f'daemon "{daemon}"' + (f', node "{lost.node}"' if lost.node else "")
            return roll_back(data, f"{where}: {lost.reason}", now)
        case events.PartAbsent(daemon=daemon):
            data.end_part(data.parts[daemon], None)
            reason = f'daemon "{daemon}" was restarted while it prepared its nodes'
            return roll_back(data, reason, now, repeat=True)
        case events.DaemonLost(daemon=daemon):
            reason = f'the connection to daemon "{daemon}" was lost while it prepared its nodes'
            return roll_back(data, reason, now, repeat=True)
        case events.StopRequested():
            return roll_back(data, "stopped before it had started", now)
        case events.TimerExpired(purpose=purpose):
            return _timer_expired(data, purpose, now)


def _part_reported(data: DataflowData, event: events.PartReported, now: float) -> list[Command]:
    part, report = data.parts[event.daemon], event.report
    part.reported = True
    if report.attempt != part.attempt:
        part.attempt = report.attempt
        data.parts.mark(part)
    match report.phase:
        case "prepared":
            data.parts.move(part, PartState.PREPARED)
            return go_on(data, now)
        case "running" if not report.stopped:  # released: the store is older than this start
            data.parts.move(part, PartState.RUNNING)
            return _release_all(data, now)
        case "ended":
            data.end_part(part, report.result)
            return roll_back(data, ended_early(report, event.daemon), now)
        case "preparing" | "running" | "stopping" | "lost":
            return roll_back(data, stopped_with(event.daemon), now) if report.stopped else []


def _timer_expired(data: DataflowData, purpose: DataflowTimer, now: float) -> list[Command]:
    if purpose == "start" and data.phase is not Phase.LINKING:
        return _check_parts(data, now)
    if purpose == "link" and data.phase is Phase.LINKING:
        return _check_links(data, now)
    return []


def _check_parts(data: DataflowData, now: float) -> list[Command]:
    """Fail if a daemon has not started its nodes in time; their own start has no limit here."""
    limit = data.settings.start_timeout
    loading = [part for part in data.parts.values() if part.state is PartState.PREPARING]
    late = [part for part in loading if not part.reported]
    unlinked = [data.parts[machine] for machine in data.links.unreported()]
    if late or unlinked:
        return roll_back(data, late_start(late, unlinked, limit), now, repeat=True)
    data.loading = (
        f"nodes on {names(loading)} to connect (they have not created a dora `Node()` yet; "
        "`startup_timeout` sets a limit, `dora stop` ends the start)"
    )
    return [ArmTimer(data.timer("start"), now + limit)]


def go_on(data: DataflowData, now: float) -> list[Command]:
    """Take the next step of the start if its conditions are met."""
    if data.phase is Phase.LINKING:
        return _release_all(data, now) if data.links.all_linked else []
    unable = data.links.unable_to_listen()
    if unable and not data.spec.allow_unlinked:
        return roll_back(data, "; ".join(unable), now)
    if not data.parts.all_prepared:
        return []
    if not data.links:
        return _release_all(data, now)
    if not data.links.all_listen:
        return []
    data.phase = Phase.LINKING
    data.linking_since = now
    return _release_all(data, now) if data.links.all_linked else [_next_check(data, now)]


def _next_check(data: DataflowData, now: float) -> Command:
    interval = min(data.settings.link_timeout / 2, MAX_CHECK_INTERVAL)
    return ArmTimer(data.timer("link"), now + interval)


def may_wait(links: Links, waited: float, settings: Settings, *, allow_unlinked: bool) -> bool:
    """Return whether the start may wait longer for missing links.

    Machines that answer slowly get more time than machines that do not answer.
    """
    slow = links.only_slow and not allow_unlinked
    limit = settings.slow_link_timeout if slow else settings.link_timeout
    return waited < limit - CLOCK_PRECISION


def _check_links(data: DataflowData, now: float) -> list[Command]:
    allow_unlinked = data.spec.allow_unlinked
    waited = now - data.linking_since
    if may_wait(data.links, waited, data.settings, allow_unlinked=allow_unlinked):
        data.missing_links = f"links: {data.links.pending()}"
        return [_next_check(data, now)]
    if allow_unlinked:
        data.warnings = (data.links.explain_unlinked(),)
        return _release_all(data, now)
    return roll_back(data, unlinked_start(data.links), now, repeat=True)


def _release_all(data: DataflowData, now: float) -> list[Command]:
    data.phase = Phase.RELEASING
    data.released = True
    data.missing_links = None
    return [
        CancelTimer(data.timer("link")),
        *(part.release() for part in data.parts.values()),
        ArmTimer(data.timer("start"), now + data.settings.start_timeout),
    ]
