"""`dora cluster`: a coordinator and the machines around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dora_cli import coordinator_options as coordinator
from dora_cli import options, output

if TYPE_CHECKING:
    from dora_config.protocol.control import ClusterReport

app = options.application()


@app.callback()
def cluster() -> None:
    """Look after a cluster of machines."""


@app.command()
def status(
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Show the daemons of the coordinator and how they are."""
    from dora_config.protocol.control import ClusterReport, ClusterStatus

    with coordinator.client(coordinator_addr, coordinator_port) as client:
        report = client.ask(ClusterStatus(), ClusterReport)
    if output_format is options.TableFormat.JSON:
        for one in report.daemons:
            output.json_line(one.model_dump())
        return
    if not any(one.connected for one in report.daemons):
        output.write("No daemons connected.")
    if report.daemons:
        columns = (
            "DAEMON ID",
            "LAST HEARTBEAT",
            "RESTARTS",
            "HEALTH KILLS",
            "INPUT TIMEOUTS",
            "CB RECOVERIES",
        )
        rows = [
            (
                one.daemon,
                f"{one.heartbeat_age * 1000:.0f}ms ago" + ("" if one.connected else " (lost)"),
                one.restarts,
                one.health_kills,
                one.input_timeouts,
                one.input_recoveries,
            )
            for one in report.daemons
        ]
        output.table(columns, rows)
        _show_links(report)
    output.write(f"Active dataflows: {report.active_dataflows}")


def _show_links(report: ClusterReport) -> None:
    links = [link for daemon in report.daemons for link in daemon.links]
    if not links:
        return
    columns = ("DATAFLOW", "FROM", "TO", "LINK", "ROUND TRIP", "AT")
    rows = [
        (
            link.dataflow,
            link.machine,
            link.peer,
            link.state,
            "" if link.rtt_us is None else f"{link.rtt_us / 1000:.2f} ms",
            link.endpoint or "",
        )
        for link in links
    ]
    output.table(columns, rows)
    for link in links:
        if link.reason is not None and link.state != "proven":
            output.remark(f"{link.machine} to {link.peer}: {link.reason}")
