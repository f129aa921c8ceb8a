"""`dora status`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.errors import CommandFailed
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_config.access import Endpoint
    from dora_config.protocol.control import ClusterReport
    from dora_config.protocol.snapshot import DaemonSummary


def main(
    output_format: options.Output = options.TableFormat.TABLE,
    dataflow: Annotated[
        Path | None,
        typer.Option("--dataflow", metavar="PATH", help="Also check this dataflow file."),
    ] = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Check the coordinator and its daemons.

    The exit code is 1 if the coordinator does not answer, no daemon is connected, or the dataflow
    file is invalid.
    """
    from dora_cli.coordinator.errors import CoordinatorUnavailable, CoordinatorUnreachable
    from dora_cli.coordinator.machine_warnings import clock_warnings, plain_warnings
    from dora_config.access import endpoint

    report: ClusterReport | None = None
    problem: CoordinatorUnavailable | None = None
    try:
        with connect(coordinator_addr, coordinator_port) as client:
            report = client.get(paths.STATUS)
    except CoordinatorUnavailable as error:
        problem = error
    runs = not isinstance(problem, CoordinatorUnreachable)
    machines: Sequence[DaemonSummary] = report.machines if report else ()
    daemons = sum(one.connected for one in machines)
    as_json = output_format is options.TableFormat.JSON
    if as_json:
        at = endpoint(coordinator_addr, coordinator_port)
        output.json_line(_as_json(report, daemons, at, runs=runs))
    else:
        _print(report, machines, daemons, runs=runs)
    if problem is not None:
        output.remark(str(problem))
    for warning in (*clock_warnings(machines), *plain_warnings(machines)):
        output.warn(warning)
    valid = dataflow is None or _check(dataflow, as_json=as_json)
    if not daemons or not valid:
        output.failure("System check failed.")
        raise CommandFailed


def _print(
    report: ClusterReport | None, machines: Sequence[DaemonSummary], daemons: int, *, runs: bool
) -> None:
    if report is None:
        output.write(f"Coordinator: {'gives no report' if runs else 'not reachable'}")
        return
    lost = [one.daemon for one in machines if not one.connected and not one.ended]
    others = f"; not connected: {', '.join(lost)}" if lost else ""
    output.write(f"Coordinator: connected ({report.coordinator.release})")
    output.write(f"Daemons: {daemons or 'none'} connected{others}")
    output.write(f"Active dataflows: {report.active_dataflows}")


def _check(dataflow: Path, *, as_json: bool) -> bool:
    """Print what is found in a dataflow file; return whether it is valid."""
    from dora_cli.diagnosis import CheckResult, check_dataflow

    valid = True
    for one in check_dataflow(dataflow):
        valid = valid and one.result is not CheckResult.FAIL
        line = f"{one.result}  {one.subject}: {one.text}"
        if not as_json:
            output.write(line)
        elif one.result is not CheckResult.PASS:
            output.remark(line)
    return valid


def _as_json(
    report: ClusterReport | None, daemons: int, at: Endpoint, *, runs: bool
) -> dict[str, object]:
    """Return the report with the keys and values of dora-rs.

    ``runs``: a coordinator that gives no report accepted the connection, or is busy.
    """
    if report is None:
        return {
            "coordinator": {"status": "unknown" if runs else "not running"},
            "daemon": {"status": "unknown"},
            "active_dataflows": None,
        }
    return {
        "coordinator": {"status": "running", "address": str(at)},
        "daemon": {"status": "running" if daemons else "not running"},
        "active_dataflows": report.active_dataflows,
    }
