"""`dora status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config.access import Endpoint
    from dora_config.protocol.control import ClusterReport


def main(
    output_format: options.Output = options.TableFormat.TABLE,
    dataflow: Annotated[
        Path | None,
        typer.Option("--dataflow", metavar="PATH", help="Also check this dataflow file."),
    ] = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Check the coordinator and its daemons; the exit code is 1 if one is missing."""
    from dora_cli import diagnosis
    from dora_cli.cluster.operations.status import clock_warnings, plain_warnings
    from dora_cli.coordinator.client import CoordinatorUnreachable
    from dora_config.access import endpoint
    from dora_config.protocol.control import ClusterReport, ClusterStatus

    report = None
    problem = ""
    try:
        with connect(coordinator_addr, coordinator_port) as client:
            report = client.request(ClusterStatus(), ClusterReport)
    except CoordinatorUnreachable as error:
        problem = str(error)
    findings = list(diagnosis.check_dataflow(dataflow)) if dataflow is not None else []
    failed = [one.text for one in findings if one.result is diagnosis.CheckResult.FAIL]
    daemons = sum(one.connected for one in report.daemons) if report else 0
    if output_format is options.TableFormat.JSON:
        output.json_line(_as_json(report, endpoint(coordinator_addr, coordinator_port)))
        for text in failed:
            output.remark(text)
    else:
        if report is None:
            output.write("Coordinator: not reachable")
            output.remark(problem)
        else:
            output.write(f"Coordinator: connected ({report.coordinator.release})")
            output.write(f"Daemons: {daemons} connected" if daemons else "Daemons: none connected")
            output.write(f"Active dataflows: {report.active_dataflows}")
            for warning in (*clock_warnings(report), *plain_warnings(report)):
                output.warn(warning)
        for one in findings:
            output.write(f"{one.result}  {one.subject}: {one.text}")
    if failed or not daemons:
        output.failure("System check failed.")
        raise CommandFailed


def _as_json(report: ClusterReport | None, at: Endpoint) -> dict[str, object]:
    """Return the report with the keys and values of dora-rs."""
    if report is None:
        return {
            "coordinator": {"status": "not running"},
            "daemon": {"status": "unknown"},
            "active_dataflows": None,
        }
    connected = any(daemon.connected for daemon in report.daemons)
    return {
        "coordinator": {"status": "running", "address": str(at)},
        "daemon": {"status": "running" if connected else "not running"},
        "active_dataflows": report.active_dataflows,
    }
