"""`dora status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, open_rest
from dora_cli.errors import CommandFailed
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_cli.coordinator.rows import MachineRow
    from dora_cli.diagnosis import Finding
    from dora_config.access import Endpoint


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
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_cli.coordinator.machine_warnings import clock_warnings, plain_warnings
    from dora_config.access import endpoint

    report: dict[str, Any] | None = None
    problem = ""
    try:
        with open_rest(coordinator_addr, coordinator_port) as client:
            report = client.get(paths.STATUS)
    except CoordinatorUnreachable as error:
        problem = str(error)
    findings = [] if dataflow is None else _check(dataflow)
    failed = [one.text for one in findings if one.result == "FAIL"]
    machines: list[MachineRow] = report["machines"] if report else []
    daemons = sum(one["connected"] for one in machines)
    if output_format is options.TableFormat.JSON:
        at = endpoint(coordinator_addr, coordinator_port)
        output.json_line(_as_json(report, daemons, at))
        for text in failed:
            output.remark(text)
    else:
        if report is None:
            output.write("Coordinator: not reachable")
            output.remark(problem)
        else:
            output.write(f"Coordinator: connected ({report['coordinator']['release']})")
            output.write(f"Daemons: {daemons} connected" if daemons else "Daemons: none connected")
            output.write(f"Active dataflows: {report['active_dataflows']}")
            for warning in (*clock_warnings(machines), *plain_warnings(machines)):
                output.warn(warning)
        for one in findings:
            output.write(f"{one.result}  {one.subject}: {one.text}")
    if failed or not daemons:
        output.failure("System check failed.")
        raise CommandFailed


def _check(dataflow: Path) -> list[Finding]:
    from dora_cli.diagnosis import check_dataflow

    return list(check_dataflow(dataflow))


def _as_json(report: dict[str, Any] | None, daemons: int, at: Endpoint) -> dict[str, object]:
    """Return the report with the keys and values of dora-rs."""
    if report is None:
        return {
            "coordinator": {"status": "not running"},
            "daemon": {"status": "unknown"},
            "active_dataflows": None,
        }
    return {
        "coordinator": {"status": "running", "address": str(at)},
        "daemon": {"status": "running" if daemons else "not running"},
        "active_dataflows": report["active_dataflows"],
    }
