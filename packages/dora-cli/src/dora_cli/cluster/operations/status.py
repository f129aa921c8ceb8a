"""`dora cluster status`: tables of the daemons and of the links between them."""

from __future__ import annotations

from dora_cli import output
from dora_cli.clock_offset import MOST_CLOCK_DIFFERENCE, clock_warning, show_offset
from dora_config.protocol.control import ClusterReport, DaemonSummary, LinkSummary

COLUMNS = (
    "DAEMON ID",
    "LAST HEARTBEAT",
    "VERSION",
    "CLOCK",
    "LABELS",
    "RESTARTS",
    "HEALTH KILLS",
    "INPUT TIMEOUTS",
    "CB RECOVERIES",
)
COORDINATOR = "the coordinator's"
LINK_COLUMNS = ("LINK", "DATAFLOW", "STATE", "ROUND TRIP", "CLOCK", "ADDRESS", "REASON")


def show(report: ClusterReport, *, as_json: bool) -> None:
    """Print a report as tables, or as one JSON object for each daemon."""
    if as_json:
        for one in report.daemons:
            output.json_line(one.model_dump())
        return
    if not any(one.connected for one in report.daemons):
        output.write("No daemons connected.")
    if report.daemons:
        output.table(COLUMNS, [_daemon(one) for one in report.daemons])
    links = [link for one in report.daemons for link in one.links]
    if links:
        output.write()
        output.table(LINK_COLUMNS, [_link(link) for link in links])
    output.write(f"Active dataflows: {report.active_dataflows}")
    for warning in (*clock_warnings(report), *plain_warnings(report)):
        output.warn(warning)


def plain_warnings(report: ClusterReport) -> list[str]:
    """Return a warning for the machines whose links are not encrypted."""
    names = [f'"{one.daemon}"' for one in report.daemons if one.connected and one.plain_links]
    return [f"links: plain: messages of {', '.join(names)} are not encrypted"] if names else []


def clock_warnings(report: ClusterReport) -> list[str]:
    """Return a warning for each connected machine whose clock differs from the coordinator's."""
    return [
        f'"{one.daemon}": {clock_warning(one.clock_offset, COORDINATOR)}'
        for one in report.daemons
        if one.connected
        and one.clock_offset is not None
        and abs(one.clock_offset) > MOST_CLOCK_DIFFERENCE
    ]


def _daemon(one: DaemonSummary) -> tuple[object, ...]:
    labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
    return (
        one.daemon,
        f"{one.heartbeat_age:.0f}s ago{_state_suffix(one)}",
        _version(one),
        "-" if one.clock_offset is None else show_offset(one.clock_offset),
        labels or "-",
        one.restarts,
        one.health_kills,
        one.input_timeouts,
        one.input_recoveries,
    )


def _state_suffix(one: DaemonSummary) -> str:
    if one.connected:
        return ""
    return " (ended)" if one.ended else " (lost)"


def _version(one: DaemonSummary) -> str:
    """Return the daemon's version, and other versions of its runners."""
    others = [version for version in one.runners if version != one.release]
    return f"{one.release} (runs {', '.join(others)})" if others else one.release


def _link(link: LinkSummary) -> tuple[str, ...]:
    return (
        f"{link.machine} -> {link.peer}",
        link.dataflow,
        link.state,
        "-" if link.rtt_us is None else f"{link.rtt_us / 1000:.1f} ms",
        "-" if link.clock_offset_us is None else _link_clock(link.clock_offset_us),
        link.endpoint or "-",
        link.reason or "",
    )


def _link_clock(microseconds: int) -> str:
    small = abs(microseconds) < 1_000_000
    return f"{microseconds / 1000:+.1f} ms" if small else show_offset(microseconds / 1e6)
