"""`dora status`: whether coordinator and daemons answer."""

from __future__ import annotations

from dora_cli import coordinator_options as coordinator
from dora_cli import options, output
from dora_cli.errors import CommandFailed

app = options.application()


@app.command()
def status(
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Check the coordinator and its daemons; the exit code is 1 when one is missing."""
    from dora_cli.client import CoordinatorUnreachable
    from dora_config.protocol.control import ClusterReport, ClusterStatus

    report = None
    problem = ""
    try:
        with coordinator.client(coordinator_addr, coordinator_port) as client:
            report = client.ask(ClusterStatus(), ClusterReport)
    except CoordinatorUnreachable as error:
        problem = str(error)
    daemons = sum(one.connected for one in report.daemons) if report else 0
    active = report.active_dataflows if report else 0
    if output_format is options.TableFormat.JSON:
        output.json_line(
            {
                "coordinator": "connected" if report else "not reachable",
                "daemon": "connected" if daemons else "not connected",
                "active_dataflows": active,
            }
        )
    elif report is None:
        output.write("Coordinator: not reachable")
        output.remark(problem)
    else:
        output.write(f"Coordinator: connected ({report.coordinator.release})")
        output.write(f"Daemons: {daemons} connected" if daemons else "Daemons: none connected")
        output.write(f"Active dataflows: {active}")
    if not daemons:
        output.failure("System check failed.")
        raise CommandFailed
