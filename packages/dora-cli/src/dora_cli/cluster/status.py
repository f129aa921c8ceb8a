"""`dora cluster status`: the daemons, and the links between them."""

from __future__ import annotations

from dora_cli import output
from dora_config.protocol.control import ClusterReport, DaemonSummary, LinkSummary

COLUMNS = (
    "DAEMON ID",
    "LAST HEARTBEAT",
    "VERSION",
    "LABELS",
    "RESTARTS",
    "HEALTH KILLS",
    "INPUT TIMEOUTS",
    "CB RECOVERIES",
)
LINK_COLUMNS = ("LINK", "DATAFLOW", "STATE", "ROUND TRIP", "CLOCK", "ADDRESS", "REASON")


def show(report: ClusterReport, *, as_json: bool) -> None:
    """Print it: tables, or one JSON object for each daemon."""
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


def _daemon(one: DaemonSummary) -> tuple[object, ...]:
    labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
    return (
        one.daemon,
        f"{one.heartbeat_age:.0f}s ago{_absence(one)}",
        _version(one),
        labels or "-",
        one.restarts,
        one.health_kills,
        one.input_timeouts,
        one.input_recoveries,
    )


def _absence(one: DaemonSummary) -> str:
    if one.connected:
        return ""
    return " (ended)" if one.ended else " (lost)"


def _version(one: DaemonSummary) -> str:
    """Of the daemon, and of runners that were started by another one."""
    others = [version for version in one.runners if version != one.release]
    return f"{one.release} (runs {', '.join(others)})" if others else one.release


def _link(link: LinkSummary) -> tuple[str, ...]:
    return (
        f"{link.machine} -> {link.peer}",
        link.dataflow,
        link.state,
        "-" if link.rtt_us is None else f"{link.rtt_us / 1000:.1f} ms",
        "-" if link.clock_offset_us is None else f"{link.clock_offset_us / 1000:+.1f} ms",
        link.endpoint or "-",
        link.reason or "",
    )
