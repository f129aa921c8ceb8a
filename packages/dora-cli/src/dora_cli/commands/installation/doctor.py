"""`dora doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort
from dora_cli.errors import CommandFailed


def main(
    dataflow: Annotated[
        Path | None,
        typer.Option("--dataflow", metavar="PATH", help="Also check this dataflow file."),
    ] = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Check this machine: versions, programs, shared memory, limits, ports.

    The exit code is 1 if a check fails. Warnings concern features that only some dataflows use.
    """
    from dora_cli import diagnosis
    from dora_config.access import endpoint

    at = endpoint(coordinator_addr, coordinator_port)
    findings = [
        *diagnosis.check_versions(),
        *diagnosis.check_python(),
        *diagnosis.check_programs(),
        *diagnosis.check_shared_memory(),
        *diagnosis.check_pipes(),
        *diagnosis.check_state_dir(),
        *diagnosis.check_coordinator(at.host, at.port),
        *diagnosis.check_daemon(),
        *diagnosis.check_ros_sessions(),
    ]
    if dataflow is not None:
        findings += diagnosis.check_dataflow(dataflow)
    colour = output.wants_colour(sys.stdout)
    styles = {"PASS": "info", "WARN": "warn", "FAIL": "error"}
    for finding in findings:
        result = output.styled(finding.result, styles[finding.result], colour=colour)
        output.write(f"{result}  {finding.subject}: {finding.text}")
    failed = sum(finding.result is diagnosis.CheckResult.FAIL for finding in findings)
    if failed:
        output.failure(f"{failed} of {len(findings)} checks failed")
        raise CommandFailed
